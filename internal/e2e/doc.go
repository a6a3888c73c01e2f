// Package e2e holds that the library keeps its promises, from end to end: clients
// talk to servers through a Proxy, over TCP, pipes and TLS, and only the exported
// API is used. It has tests only.
//
// The dialogues in testdata/dialogues tell one attack, fault or rule each;
// TestDialogues plays them. What proxytest.Record writes down of each is played by
// proxytest.Run, on a Session. Behind them are random and exhaustive sessions, faults
// of all parties at each step, and two fuzz targets. SECURITY.md tells which tests
// hold which promise.
package e2e
