package dialogue

import "testing"

// A server that gives more statuses than there are recipients must not have the client
// take one for the reply to its next command: if the client gets it, it's the last.
func TestAStatusTooManyEndsTheDialogueOrIsNotTheClients(t *testing.T) {
	for _, tt := range []struct {
		situation, way string
		due            int // replies that the client waits for
		why            string
	}{
		{"Undecided, all refused", "reply 550, read, hand end", 0, "a third status for two recipients, all of them refused"},
		{"Undecided, all accepted", "reply 550, read, hand end", 2, "a third status for two recipients, two of them accepted"},
		{"Refusing, all accepted", "reply 550, drop rest", 1, "a second reply to a message that the library refuses"},
	} {
		m := at(tt.situation)
		replies, kept := 0, int(m.msg.kept)
		for _, in := range named(tt.way) {
			switch r := in.do(&m).(type) {
			case Step:
				switch r.Fate {
				case Forward:
					replies++
				case Keep:
					kept++
				}
			case Handing:
				if r.Tell {
					replies += kept
				}
			case int: // DroppedRest, in the place of what is kept
				replies += r
			}
		}
		if replies > tt.due && m.state != Over && m.state != Unwanted {
			t.Errorf("%s: the client waits for %d replies and gets %d, and the dialogue is at %v", tt.why, tt.due, replies, m.state)
		}
	}
}
