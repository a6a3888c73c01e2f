package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/wire"
)

// BenchmarkContent is about what mail is made of. That a server sees no end in
// most of it must cost little, in whatever language it is.
func BenchmarkContent(b *testing.B) {
	const size = 1 << 20
	for _, row := range []struct{ name, lines string }{
		{"ascii", "It is a truth universally acknowledged, e.g. that a man must want a wife.\r\n"},
		{"base64", strings.Repeat("TG9yZW0gaXBzdW0g", 5)[:76] + "\r\n"},
		{"russian", "Все счастливые семьи похожи друг на друга.\r\nКаждая несчастливая несчастлива по-своему.\r\n"},
		{"japanese", "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。\r\n"},
		// The Russian above in KOI8-R, which is no UTF-8.
		{"koi8-r", "\xf7\xd3\xc5 \xd3\xde\xc1\xd3\xd4\xcc\xc9\xd7\xd9\xc5 \xd3\xc5\xcd\xd8\xc9 \xd0\xcf\xc8\xcf\xd6\xc9 \xc4\xd2\xd5\xc7 \xce\xc1 \xc4\xd2\xd5\xc7\xc1.\r\n" +
			"\xeb\xc1\xd6\xc4\xc1\xd1 \xce\xc5\xd3\xde\xc1\xd3\xd4\xcc\xc9\xd7\xc1\xd1 \xce\xc5\xd3\xde\xc1\xd3\xd4\xcc\xc9\xd7\xc1 \xd0\xcf-\xd3\xd7\xcf\xc5\xcd\xd5.\r\n"},
		// Of a table of contents, in which no line is dots alone.
		{"dots", "1.2.3. Down the rabbit hole ......................................... 12\r\n..x\r\n"},
		// Lines that are dots alone: the server has its word at each.
		{"stops", "..\r\n"},
	} {
		b.Run(row.name, func(b *testing.B) {
			content := bytes.Repeat([]byte(row.lines), size/len(row.lines))
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				var c wire.Content
				for rest := content; len(rest) > 0; {
					n, _ := c.Next(rest, 4096) // what go-smtp reads at once
					if n == 0 {
						break
					}
					rest = rest[n:]
				}
			}
		})
	}
}
