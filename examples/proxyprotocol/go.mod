module github.com/seed3262c777/smtpproxy/examples/proxyprotocol

go 1.25.0

require (
	github.com/emersion/go-smtp v0.25.1
	github.com/pires/go-proxyproto v0.15.0
	github.com/seed3262c777/smtpproxy v0.0.0
)

require (
	github.com/emersion/go-sasl v0.0.0-20241020182733-b788ff22d5a6 // indirect
	github.com/google/uuid v1.6.0 // indirect
	golang.org/x/sys v0.41.0 // indirect
)

replace github.com/seed3262c777/smtpproxy => ../..
