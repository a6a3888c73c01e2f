package smtpproxy

import (
	"testing"
	"unsafe"
)

// Go allocates in sizes of its own: 192, 208, 224, 240, 256, 288, 320, 352 octets and so on. One field too
// many, and each idle connection takes the next larger one. Most connections are idle
// most of the time.
func TestAnIdleConnectionTakesNoMoreThanTheSizesOfItsParts(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("sizes are those of a 64-bit system")
	}
	for _, part := range []struct {
		what       string
		size, most uintptr
	}{
		{"conn", unsafe.Sizeof(conn{}), 352},
		{"Session", unsafe.Sizeof(Session{}), 352},
		// There in a transaction, and behind one that the server may have kept.
		{"mail", unsafe.Sizeof(mail{}), 208},
	} {
		if part.size > part.most {
			t.Errorf("%s has %d octets, more than %d", part.what, part.size, part.most)
		}
	}
}
