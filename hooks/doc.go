// Package hooks has hooks that are ready to use, each a policy made of package smtpproxy's
// own API alone: who wants another one writes it the same way.
//
// Behind front ends:
//
//   - [XCLIENT] lets a front end tell whose connection it is;
//   - [XFORWARD] takes what a mail filter's client tells of where a message comes from.
//
// For clients that can't do better:
//
//   - [Rewrite] changes command lines by a table;
//   - [StripParameters] and [AddParameter] change parameters of MAIL and RCPT;
//   - [RepairHELO] gives a client a name that has none, or a bad one.
//
// Against too much of anything:
//
//   - [Limits] bounds what clients do, on a connection, from a network, as a sender, as a login;
//     a [Store] keeps count, in memory ([MemoryStore]) or for several servers.
//
// Policy, that is whom a server takes what from:
//
//   - [Networks] lets clients in by their address, [DNSList] asks a list in the DNS about it,
//     and [EarlyTalkers] has them wait for the greeting, all three before they are greeted;
//   - [CheckHELO] refuses mail of clients whose greeting can't be true, [RequirePTR] of those
//     whose host name isn't known;
//   - [RequireTLS] takes AUTH, or everything, inside TLS only;
//   - [AllowVerbs] lets some commands through, [Answers] answers some in the server's place;
//   - [Strict] holds clients to the order and syntax of RFC 5321.
//
// In a chain, [XCLIENT] stands first, but for what decides about the front end itself; then those
// that change commands; then [Limits]; then those that refuse or answer commands. Those that
// refuse would decide else about what the server doesn't get, and Limits wouldn't be asked about
// what another hook refuses. Who should be
// left alone, such as one's own network, is told by smtpproxy.Proxy.HookFor. A hook of one's own
// whose Connect decides on a Restart stands last, since that ends the asking (see [Networks]).
//
// smtpproxy.Proxy.Commands must be empty for all that bound or refuse something: it keeps
// commands from the hooks, and passes what it doesn't have without asking them.
//
// For those who want to know:
//
//   - [Trace] writes each command with its reply to a log, for people and for fail2ban;
//   - [Transcript] writes dialogues to files, as a test with proxytest tells them.
//
// For those who test programs that send mail:
//
//   - [Chaos] answers what it is told to, lets clients wait and breaks connections off.
//
// Trace and Transcript are observers: their method Observer returns what belongs into
// smtpproxy.Proxy.Observers. All others are hooks, to be put together by smtpproxy.Chain and
// smtpproxy.Mux: each value is a smtpproxy.Hook itself, or its pointer is, but for Limits, whose
// method Hook returns one, and for StripParameters, AddParameter and AllowVerbs, which are
// functions that do.
//
// One value serves all connections, and what is remembered of one of them is kept with
// smtpproxy.State. Of more than one, only these remember anything, and guard it: Chaos what it
// counts, DNSList the answers, and the Store of Limits its buckets.
package hooks
