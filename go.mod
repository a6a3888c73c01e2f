module github.com/seed3262c777/smtpproxy

go 1.25

require (
	github.com/emersion/go-sasl v0.0.0-20241020182733-b788ff22d5a6
	github.com/emersion/go-smtp v0.25.1
	github.com/google/uuid v1.6.0
	go.uber.org/goleak v1.3.0
)
