module github.com/seed3262c777/smtpproxy/internal/hosts

go 1.25

replace github.com/seed3262c777/smtpproxy => ../..

require (
	github.com/bradfitz/go-smtpd v0.0.0-20170404230938-deb6d6237625
	github.com/chrj/smtpd v0.3.1
	github.com/emersion/go-sasl v0.0.0-20241020182733-b788ff22d5a6
	github.com/emersion/go-smtp v0.25.1
	github.com/mhale/smtpd v0.8.3
	github.com/seed3262c777/smtpproxy v0.0.0
	go.uber.org/goleak v1.3.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	golang.org/x/sys v0.41.0 // indirect
)
