module github.com/seed3262c777/smtpproxy/examples/submission

go 1.25

require (
	github.com/emersion/go-sasl v0.0.0-20241020182733-b788ff22d5a6
	github.com/emersion/go-smtp v0.25.1
	github.com/seed3262c777/smtpproxy v0.0.0
	github.com/xdg-go/scram v1.4.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/xdg-go/stringprep v1.0.4 // indirect
	golang.org/x/sys v0.41.0 // indirect
	golang.org/x/text v0.3.8 // indirect
)

replace github.com/seed3262c777/smtpproxy => ../..
