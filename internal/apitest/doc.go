// Package apitest has tests of the root's public API alone that need no network: what hooks
// together decide, what may be said of keywords, who looks at replies, and what a server with
// a state machine of its own owes its Session. Those of the other doors stand in the root, those
// that need a server in internal/e2e.
package apitest
