package hosts

import (
	"flag"
	"io"
	"log"
	"testing"

	"go.uber.org/goleak"
)

var sessionsFlag = flag.Int("sessions", 0, "random sessions for each property, host and way to cut what is sent; 0 is few enough for a minute")

// sessions returns how many random sessions to play.
func sessions(byDefault int) int {
	switch {
	case *sessionsFlag > 0:
		return *sessionsFlag
	case testing.Short():
		return max(byDefault/8, 2) // with the race detector, each takes several times as long
	}
	return byDefault
}

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the hosts log all that is wrong with a client
	goleak.VerifyTestMain(m)
}
