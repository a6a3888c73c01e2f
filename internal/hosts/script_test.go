package hosts

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// This file has hosts that do with RSET what no host of other people's does.

// scripted is a host that refuses every message, and keeps it like some do, and
// answers RSET as it is told.
func scripted(answer func(c net.Conn) (goesOn bool)) host {
	return host{name: "scripted", serve: func(l net.Listener, _ limits, rec *record) error {
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer c.Close()
				serveScript(c, rec, answer)
			}()
		}
	}}
}

func serveScript(c net.Conn, rec *record, answer func(c net.Conn) bool) {
	r := bufio.NewReader(c)
	content := false
	for reply := "220 script.example"; reply == "" || write(c, reply); {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		reply = ""
		switch {
		case content && line == ".":
			content, reply = false, "550 refused"
		case content:
			continue
		default:
			rec.noteText(command, line)
			switch verbOf(line) {
			case "DATA":
				content, reply = true, "354 go ahead"
			case "RSET":
				if !answer(c) {
					return
				}
			default:
				reply = "250 ok"
			}
		}
	}
}

func write(c net.Conn, reply string) bool {
	_, err := io.WriteString(c, reply+"\r\n")
	return err == nil
}

func TestARSETThatTheHostDoesNotTakeIsTheEnd(t *testing.T) {
	says := func(reply string) func(net.Conn) bool {
		return func(c net.Conn) bool { return write(c, reply) }
	}
	for _, row := range []struct {
		why    string
		answer func(net.Conn) bool
		reply  string // to MAIL
		after  time.Duration
	}{
		{"the host refuses it for good", says("503 not now"), "421 ", 0},
		{"the host refuses it for now", says("451 not now"), "421 ", 0},
		{"the host doesn't know it", says("500 what"), "421 ", 0},
		{"the host goes", says("421 4.3.2 script is closing"), "421 4.3.2 script is closing", 0},
		{"the host asks for more", says("354 more"), "421 ", 0},
		{"the host answers for TLS", says("220 ready"), "421 ", 0},
		// The host's sleeps are a bubble's.
		{"the host takes its time", func(c net.Conn) bool { time.Sleep(30 * time.Second); return write(c, "250 at last") }, "250 ok", 30 * time.Second},
		{"the host takes its time to refuse", func(c net.Conn) bool { time.Sleep(30 * time.Second); return write(c, "500 no") }, "421 ", 30 * time.Second},
		{"the host writes half of it first", func(c net.Conn) bool {
			io.WriteString(c, "250-a\r\n25")
			time.Sleep(time.Second) // a bubble's
			return write(c, "0 b")
		}, "250 ok", time.Second},
	} {
		for _, f := range fronts {
			for _, way := range []string{"in lock step", "pipelined"} {
				t.Run(fmt.Sprintf("%s, %s, %s", f.name, row.why, way), func(t *testing.T) {
					problem, events := talk(t, 0, scripted(row.answer), limits{}, whole, memory, f.front, true, func(d *dialogue) {
						d.inDoubt()
						d.nextAt(way == "pipelined", row.reply, row.after)
					})
					if problem == "" {
						problem = executedAsTold(events, strings.HasPrefix(row.reply, "250"))
					}
					if problem != "" {
						t.Error(problem)
					}
				})
			}
		}
	}
}

// inDoubt ends a transaction in doubt.
func (d *dialogue) inDoubt() {
	for _, line := range []string{"EHLO client.example", "MAIL FROM:<s@example.com>", "RCPT TO:<r@example.org>", "DATA"} {
		d.ask("%s", line)
	}
	d.say("text\r\n.\r\n")
	if code := d.reply(); code != 550 {
		d.fail("the message got %d", code)
	}
}

// nextAt begins the next transaction, and wants a reply to its MAIL at a time.
func (d *dialogue) nextAt(pipelined bool, reply string, after time.Duration) {
	start := time.Now()
	if pipelined {
		d.say("MAIL FROM:<next@example.com>\r\nRCPT TO:<next@example.org>\r\nNOOP\r\n")
		d.reply()
	} else {
		d.ask("MAIL FROM:<next@example.com>")
	}
	// Replies of a group are held for some milliseconds (RFC 2920 section 3.2).
	took := time.Since(start)
	if !strings.HasPrefix(d.text, reply) || took < after || took > after+100*time.Millisecond {
		d.fail("MAIL got %q after %v, want %s after %v", d.text, took, reply, after)
	}
	if strings.HasPrefix(reply, "421") {
		d.quiet()
		if !d.over || d.text[:3] != "421" {
			d.fail("the connection goes on")
		}
		return
	}
	for range 2 {
		if !pipelined {
			d.say("NOOP\r\n")
		}
		if code := d.reply(); code != 250 {
			d.fail("then came %d", code)
		}
	}
	d.quiet()
}

// executedAsTold tells whether the host got RSET and then MAIL, or nothing behind it.
func executedAsTold(events []event, goesOn bool) string {
	var lines []string
	for _, e := range events {
		if e.what == command {
			lines = append(lines, e.text)
		}
	}
	all := strings.Join(lines, ", ")
	const ends = "DATA, RSET"
	if goesOn && !strings.Contains(all, ends+", MAIL FROM:<next@example.com>") || !goesOn && !strings.HasSuffix(all, ends) {
		return fmt.Sprintf("the host executed %s", all)
	}
	return ""
}

func TestAHostThatEndsAtRSETIsTheEndForTheClient(t *testing.T) {
	for _, f := range fronts {
		t.Run(f.name, func(t *testing.T) {
			hangsUp := scripted(func(net.Conn) bool { return false })
			problem, events := talk(t, 0, hangsUp, limits{}, whole, memory, f.front, true, func(d *dialogue) {
				d.inDoubt()
				if code := d.ask("MAIL FROM:<next@example.com>"); code != 0 && code != 421 {
					d.fail("MAIL got %d", code)
				}
				if d.quiet(); d.problem == "" && !d.over {
					d.fail("the connection goes on")
				}
			})
			if problem == "" {
				problem = executedAsTold(events, false)
			}
			if problem != "" {
				t.Error(problem)
			}
		})
	}
}
