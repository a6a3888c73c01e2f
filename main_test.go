package smtpproxy_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

// TestMain holds that nothing is left of a connection that ends.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // what tests bring about is no news
	goleak.VerifyTestMain(m)
}
