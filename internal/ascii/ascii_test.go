package ascii

import (
	"strings"
	"testing"
)

func TestASCIILettersAloneAreFolded(t *testing.T) {
	for _, tt := range []struct {
		name, in, upper, lower string
	}{
		{"empty", "", "", ""},
		{"mixed", "aZ", "AZ", "az"},
		{"edges of the alphabet", "@AZ[`az{", "@AZ[`AZ{", "@az[`az{"},
		{"long s and Kelvin sign", "ſ\u212aä", "ſ\u212aä", "ſ\u212aä"},
		{"invalid UTF-8 kept", "a\xffB", "A\xffB", "a\xffb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ToUpper(tt.in); got != tt.upper {
				t.Errorf("ToUpper(%q) = %q, want %q", tt.in, got, tt.upper)
			}
			if got := ToLower(tt.in); got != tt.lower {
				t.Errorf("ToLower(%q) = %q, want %q", tt.in, got, tt.lower)
			}
			if !EqualFold(tt.upper, tt.lower) {
				t.Errorf("EqualFold(%q, %q) = false", tt.upper, tt.lower)
			}
		})
	}
	for _, tt := range []struct{ name, a, b string }{
		{"different length", "a", "ab"},
		{"long s", "ſ", "s"},
		{"long s in octets of the same number", "ſ", "ss"},
		{"Kelvin sign", "\u212a", "k"},
		{"umlauts", "ä", "Ä"},
		{"characters 32 apart that are no letters", "@[", "`{"},
		{"digit and control 32 apart", "0", "\x10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if EqualFold(tt.a, tt.b) {
				t.Errorf("EqualFold(%q, %q) = true", tt.a, tt.b)
			}
		})
	}
	same, other := "MAIL1-"+strings.Repeat("X", 100), "mail1-"+strings.Repeat("x", 100)
	if n := testing.AllocsPerRun(100, func() {
		if ToUpper(same) != same || ToLower(other) != other || !EqualFold(same, other) {
			t.Error("folding is wrong")
		}
	}); n != 0 {
		t.Errorf("%v allocations where nothing changes", n)
	}
}

func TestLetDigsAreASCIILettersAndDigits(t *testing.T) {
	const letDigs = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	// Octets, some of which would be letters in Latin-1, and what Unicode folds
	// to a letter or calls a digit.
	for r := range rune(0x100) {
		if got, want := IsLetDig(r), strings.ContainsRune(letDigs, r); got != want {
			t.Errorf("IsLetDig(%q) = %v", r, got)
		}
	}
	for _, r := range "ſ\u212a٣Ａ" {
		if IsLetDig(r) {
			t.Errorf("IsLetDig(%q) = true", r)
		}
	}
}

func TestTheFirstASCIIControlCharacterIsFound(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     int
	}{
		{"empty", "", -1},
		{"text", "MAIL FROM:<a@b>", -1},
		{"a tab is sent for a space", "MAIL\tFROM:<a@b>", -1},
		{"NUL, at the start", "\x00a", 0},
		{"CR, the first of two", "a\r\n", 1},
		{"DEL, at the end", "ab\x7f", 2},
		{"behind UTF-8, counted in octets", "ö\x1b", 2},
		{"C1 is beyond ASCII", "\u0085", -1},
		{"octets of no UTF-8", "\x80\xff", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := IndexControl(tt.in); got != tt.want {
				t.Errorf("IndexControl(%q) = %d, want %d", tt.in, got, tt.want)
			}
		})
	}
	for c := range 0x100 {
		control := c < ' ' && c != '\t' || c == 0x7f
		if got := IndexControl(string([]byte{byte(c)})) == 0; got != control {
			t.Errorf("octet %#02x is a control character: %v", c, got)
		}
	}
}

func TestWhatSomeReadAsABlankIsForeign(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    rune
		want bool
	}{
		{"next line, a control character and white space", '\u0085', true},
		{"string terminator, a control character alone", '\u009c', true},
		{"no-break space", '\u00a0', true},
		{"ideographic space", '\u3000', true},
		{"line separator", '\u2028', true},
		{"Mongolian vowel separator, white space until Unicode 6.3", '\u180e', true},
		{"zero width space, white space until Unicode 4.0.1", '\u200b', true},
		{"byte order mark, white space to JavaScript", '\ufeff', true},
		{"zero width joiner, which names need", '\u200d', false},
		{"letter", 'ö', false},
		{"replacement character", '\ufffd', false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := IsForeign(tt.r); got != tt.want {
				t.Errorf("IsForeign(%q) = %v", tt.r, got)
			}
		})
	}
	for r := range rune(0x80) {
		if IsForeign(r) {
			t.Errorf("IsForeign(%q), which is ASCII, = true", r)
		}
	}
}
