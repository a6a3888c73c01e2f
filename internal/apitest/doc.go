// Package apitest has tests of the root's public API alone that need neither a network
// nor a server: what hooks together decide, what may be said of keywords, and who looks at
// replies. Those of the doors stand in the root, those that need a server in internal/e2e.
package apitest
