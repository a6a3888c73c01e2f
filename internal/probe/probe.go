// Package probe lets proxytest watch the hooks that it tests, while the library calls
// them as it always does.
package probe

import "context"

// Probe has functions that the library calls.
type Probe struct {
	// Decided is told what a hook, with its name if it has one, has decided about a
	// command. ctx is what the hook's Context was made from.
	Decided func(ctx context.Context, hook string, decision any, err error)
	// Failed is told of a failure that Proxy.OnFailure isn't asked about.
	Failed func(error)
	// Disconnected is told that all hooks have been told of the connection's end.
	Disconnected func()
}

// Watched is what a hook is that is to be watched. It has a method Unwrap that
// returns the hook itself.
type Watched interface{ Probe() *Probe }
