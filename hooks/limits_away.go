package hooks

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// This file is about stores that may be slow, or away.

// patient is a store that is waited for no longer than so long. The client's leaving ends
// nothing: who has left has still done what is to be counted.
type patient struct {
	Store
	limit time.Duration
}

func (p patient) Take(ctx context.Context, b Bucket, n int) (bool, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.limit)
	defer cancel()
	return p.Store.Take(ctx, b, n)
}

func (p patient) Charge(ctx context.Context, b Bucket, n int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.limit)
	defer cancel()
	return p.Store.Charge(ctx, b, n)
}

// reporting is a store that tells the log when it goes away, and when it is back.
type reporting struct {
	Store
	away atomic.Bool
}

func (r *reporting) Take(ctx context.Context, b Bucket, n int) (bool, error) {
	ok, err := r.Store.Take(ctx, b, n)
	r.report(ctx, err)
	return ok, err
}

func (r *reporting) Charge(ctx context.Context, b Bucket, n int) error {
	err := r.Store.Charge(ctx, b, n)
	r.report(ctx, err)
	return err
}

func (r *reporting) report(ctx context.Context, err error) {
	if away := err != nil; r.away.Load() == away || r.away.Swap(away) == away {
		return
	}
	if err != nil {
		slog.WarnContext(ctx, "smtpproxy/hooks: the store of limits is away: there are none", "error", err)
		return
	}
	slog.WarnContext(ctx, "smtpproxy/hooks: the store of limits is back")
}
