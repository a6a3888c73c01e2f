// Package hosts holds the library against SMTP servers that other people wrote:
// what is promised for any server has to hold for these. It has tests only, in a
// module of its own, so that the servers are no dependencies of the library.
//
// The hosts are made to refuse and to give up as often as can be: they have small
// limits, short timeouts, and handlers that refuse what says so. Random clients
// talk to them through the library, and four properties are held: nothing slips
// past the hook, what the hook is shown is what the server has, nothing is lost,
// and nobody notices the library, but for differences that are listed and counted.
//
// A small relay of the package's own obeys the same rules in a tenth of the code,
// or breaks one of them: with it the properties are tested themselves.
package hosts
