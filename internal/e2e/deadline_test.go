package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed3262c777/smtpproxy"
	"github.com/seed3262c777/smtpproxy/internal/servertest"
)

// This file is about time: deadlines, and what must not wait. All its sleeps are
// in bubbles of testing/synctest, where they take no time, but where a goroutine
// waits for a mutex: that stops a bubble's clock.

func TestASilentClientIsEndedAsWithoutTheLibrary(t *testing.T) {
	for _, tt := range []struct {
		why  string
		send []string // one each three seconds
		end  string
		// unfinished: without the library, go-smtp executes what it has of
		// a line, and waits on.
		unfinished bool
	}{
		{"from the beginning", nil, "10s", false},
		{"behind EHLO", []string{"EHLO x\r\n"}, "13s", false},
		{"in a transaction", []string{"EHLO x\r\nMAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n"}, "16s", false},
		{"in a SASL exchange", []string{"EHLO x\r\n", "AUTH PLAIN\r\n"}, "26s", false},
		{"in the middle of a line", []string{"EHLO x\r\n", "NOOP\r\nNOO"}, "16s", true},
		{"each octet in time, but not the whole line", []string{"N", "O", "O", "P", "\r"}, "10s", true},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			var diaries [][]string
			plain := servertest.GoSMTP()
			for _, s := range []fronted{{plain, plain.Serve, plain.Close}, behindGoSMTP(&smtpproxy.Proxy{Hook: &passLog{}})} {
				c := patientPeer(t, s)
				done := make(chan struct{})
				go func() {
					defer close(done)
					for _, piece := range tt.send {
						time.Sleep(3 * time.Second) // a bubble's: less than the deadline of 10
						io.WriteString(c, piece)
					}
				}()
				diaries = append(diaries, c.diary())
				<-done
			}
			if !tt.unfinished && !slices.Equal(diaries[0], diaries[1]) {
				t.Errorf("without the library\n%q\nwith it\n%q", diaries[0], diaries[1])
			}
			end := diaries[1][len(diaries[1])-2:]
			if !strings.HasPrefix(end[0], tt.end+` "421 4.4.2`) || end[1] != tt.end+` ""` {
				t.Errorf("the end is %q", end)
			}
		})
	}
}

// slowHook sleeps for as long as a command says behind its verb, and answers
// HELP.
func slowHook(cmd command) (decision, error) {
	line, seconds, _ := strings.Cut(cmd.Line, "#")
	if d, err := time.ParseDuration(seconds); err == nil {
		time.Sleep(d) // a bubble's: the hook is slow
	}
	if cmd.Verb() == "HELP" {
		return reply{Code: 214}, nil
	}
	return pass{Command: line}, nil
}

// TestTheTimeOfAHookIsNotTheClients is about the server's deadline of ten
// seconds.
func TestTheTimeOfAHookIsNotTheClients(t *testing.T) {
	for _, tt := range []struct {
		why     string
		wait    time.Duration // before the content
		replies []string
	}{
		{"the content comes in time", 9 * time.Second, []string{"250"}},
		{"the content comes too late", 11 * time.Second, []string{"554"}},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			c := patientPeer(t, behindGoSMTP(&smtpproxy.Proxy{Hook: decide(slowHook)}))
			c.expect("220")
			for _, line := range []string{"EHLO x#20s", "HELP #20s", "MAIL FROM:<a@b>#20s", "RCPT TO:<c@d>#20s"} {
				c.send(line + "\r\n")
				c.reply()
			}
			c.ask("DATA#8s", "354")
			time.Sleep(tt.wait) // a bubble's: less than what's left of the deadline, or more
			c.send("x\r\n.\r\n")
			c.expect(tt.replies...)
		})
	}
}

func TestACommandThatTheHookAnswersStartsTheDeadlineAnew(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := patientPeer(t, behindGoSMTP(&smtpproxy.Proxy{Hook: decide(slowHook)}))
		c.expect("220")
		for range 10 {
			time.Sleep(9 * time.Second) // a bubble's: less than the deadline of 10
			c.ask("HELP #5s", "214")
		}
		got := c.diary()
		if len(got) != 2 || !strings.HasPrefix(got[0], `10s "421 4.4.2`) || !strings.HasPrefix(got[1], "10s ") {
			t.Errorf("behind the last command: %q", got)
		}
	})
}

// interrupted is what a Read waits for when the server interrupts it by a
// deadline that is past.
type interrupted struct {
	why     string
	send    string
	replies []string // to the first lines
	last    string   // is read, but not replied to
	late    bool     // it is replied to, while Read waits
	goes    bool     // the client does
}

func (i interrupted) check(t *testing.T) {
	const past = -time.Second
	for when, set := range map[string]func(c net.Conn){
		"set before": func(c net.Conn) { c.SetReadDeadline(time.Now().Add(past)) },
		"set meanwhile": func(c net.Conn) {
			time.AfterFunc(time.Second, func() { c.SetReadDeadline(time.Now().Add(past)) })
		},
	} {
		bubble(t, i.why+", "+when, func(t *testing.T) {
			c := runScript(t, overPipe(t), &smtpproxy.Proxy{}, func(c net.Conn) {
				b := make([]byte, 100)
				io.WriteString(c, "220 x\r\n")
				for _, code := range i.replies {
					c.Read(b)
					io.WriteString(c, code+" x\r\n")
				}
				if i.last != "" {
					if n, err := c.Read(b); string(b[:n]) != i.last {
						t.Errorf("the server read %q, %v", b[:n], err)
					}
				}
				if i.late {
					time.AfterFunc(time.Second/2, func() { io.WriteString(c, "250 late\r\n") })
				}
				set(c)
				giveUp := time.AfterFunc(time.Hour, func() { c.Close() })
				defer giveUp.Stop()
				start := time.Now()
				n, err := c.Read(b)
				if d := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || d > time.Second {
					t.Errorf("Read returned %q, %v after %v", b[:n], err, d)
				}
			})
			c.SetDeadline(time.Time{})
			c.expect("220")
			c.send(i.send)
			if i.goes {
				<-c.sent
				c.Close()
			}
			c.diary()
		})
	}
}

func TestAPastDeadlineInterruptsAReadAtOnce(t *testing.T) {
	const mail = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
	for _, i := range []interrupted{
		{"it waits for a command", "", nil, "", false, false},
		{"it waits for the rest of a line", "NOO", nil, "", false, false},
		{"it waits for content", mail + "DATA\r\n", []string{"250", "250", "354"}, "", false, false},
		{"it waits for a chunk", mail + "BDAT 9\r\n", []string{"250", "250"}, "BDAT 9\r\n", false, false},
		{"it waits for the reply", "NOOP\r\n", nil, "NOOP\r\n", false, false},
		{"it waits for a command, behind a reply that it has waited for", "NOOP\r\n", nil, "NOOP\r\n", true, false},
		{"it waits for the reply, with a line ahead", "NOOP\r\nNOOP\r\n", nil, "NOOP\r\n", false, false},
	} {
		i.check(t)
	}
}

func TestAPastDeadlineInterruptsAReadThatWaitsForTheReplyAndCanReadNoFurtherAhead(t *testing.T) {
	for _, i := range []interrupted{
		{"no room for more", "NOOP\r\n" + strings.Repeat("NOOP\r\n", 40<<10/6), nil, "NOOP\r\n", false, false},
		{"the client has gone", "NOOP\r\nNOOP\r\n", nil, "NOOP\r\n", false, true},
	} {
		i.check(t)
	}
}

// TestAHookMovesNoDeadlineThatIsPastOrNone is about deadlines that the server
// sets while the hook is asked.
func TestAHookMovesNoDeadlineThatIsPastOrNone(t *testing.T) {
	for _, line := range []string{"NOOP #10s", "HELP #10s"} { // passed, answered
		for why, set := range map[string]func(net.Conn){
			"past":    func(c net.Conn) { c.SetReadDeadline(time.Now()) },
			"cleared": func(c net.Conn) { c.SetReadDeadline(time.Time{}) },
		} {
			bubble(t, line+", "+why, func(t *testing.T) {
				start := time.Now()
				c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: decide(slowHook)}, func(c net.Conn) {
					c.SetReadDeadline(time.Now().Add(time.Minute))
					io.WriteString(c, "220 x\r\n")
					time.AfterFunc(time.Second, func() { set(c) })
					b := make([]byte, 100)
					n, err := c.Read(b)
					if n > 0 {
						io.WriteString(c, "250 x\r\n")
						n, err = c.Read(b)
					}
					d := time.Since(start)
					if timeout := errors.Is(err, os.ErrDeadlineExceeded); timeout != (why == "past") || timeout && d > 10*time.Second {
						t.Errorf("Read returned %q, %v after %v", b[:n], err, d)
					}
				})
				c.SetDeadline(time.Now().Add(time.Hour))
				c.expect("220")
				c.send(line + "\r\n")
				c.expect("2")
				time.Sleep(time.Minute) // a bubble's: a deadline that was moved would have passed
				c.Close()
			})
		}
	}
}

func TestAfterAnInterruptedReadTheNextOneGoesOn(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			b := make([]byte, 100)
			for range 3 {
				c.SetReadDeadline(time.Now().Add(time.Second))
				if n, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Read returned %q, %v", b[:n], err)
				}
			}
			c.SetReadDeadline(time.Time{})
			if n, err := c.Read(b); string(b[:n]) != "NOOP\r\n" {
				t.Errorf("Read returned %q, %v", b[:n], err)
			}
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		for _, piece := range []string{"N", "OO", "P\r", "\n"} {
			c.send(piece)
			time.Sleep(1100 * time.Millisecond) // a bubble's: more than each Read has
		}
		c.diary()
	})
}

// TestAfterAnInterruptedReadTheRestOfARefusedChunkIsNoCommand interrupts the
// library while it drains a chunk that the server doesn't know of.
func TestAfterAnInterruptedReadTheRestOfARefusedChunkIsNoCommand(t *testing.T) {
	for _, tt := range []struct{ why, before, refuse string }{
		{"by the library", "NOOP", "502"},
		{"by the hook", "MAIL FROM:<a@b>", "450"},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			hook := decide(func(cmd command) (decision, error) {
				if cmd.Verb() == "BDAT" && tt.refuse == "450" {
					return reply{Code: 450}, nil
				}
				return nil, nil
			})
			c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
				io.WriteString(c, "220 x\r\n")
				for b := make([]byte, 100); ; {
					c.SetReadDeadline(time.Now().Add(time.Second))
					n, err := c.Read(b)
					switch line := string(b[:n]); {
					case errors.Is(err, os.ErrDeadlineExceeded):
					case err != nil:
						return
					case line == tt.before+"\r\n":
						io.WriteString(c, "250 x\r\n")
					case line == "QUIT\r\n":
						io.WriteString(c, "221 x\r\n")
					default:
						t.Errorf("the server got %q", line)
						io.WriteString(c, "250 x\r\n")
					}
				}
			})
			c.SetDeadline(time.Now().Add(time.Hour))
			c.expect("220")
			c.ask(tt.before, "250")
			for _, piece := range []string{"BDAT 18 LAST\r\n", "RSET\r\n", "RSET\r\nRSET\r\n", "QUIT\r\n"} {
				c.send(piece)
				time.Sleep(10 * time.Second) // in a bubble
			}
			c.expect(tt.refuse, "221")
		})
	}
}

func TestNothingFollowsTheServersLeaveWhileAChunkIsDropped(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			for b := make([]byte, 100); ; {
				c.SetReadDeadline(time.Now().Add(time.Second))
				n, err := c.Read(b)
				switch {
				case errors.Is(err, os.ErrDeadlineExceeded):
					io.WriteString(c, "421 bye\r\n") // and it reads on
				case err != nil:
					return
				default:
					t.Errorf("the server got %q", b[:n])
				}
			}
		})
		c.SetDeadline(time.Now().Add(time.Hour))
		c.expect("220")
		c.send("BDAT 6\r\n")
		c.expect("421 bye")
		c.send("RSET\r\nNOOP\r\n")
		c.expectEnd()
	})
}

// TestAReplyWakesTheReadThatWaitsForIt is about a server whose Read waits on
// one goroutine while another writes.
func TestAReplyWakesTheReadThatWaitsForIt(t *testing.T) {
	for name, listen := range transports {
		t.Run(name, func(t *testing.T) {
			c := runScript(t, listen(t), &smtpproxy.Proxy{}, func(c net.Conn) {
				io.WriteString(c, "220 x\r\n")
				for range readAhead(c) {
					io.WriteString(c, "250 x\r\n")
				}
			})
			c.expect("220")
			for range 500 { // a matter of which goroutine comes first
				c.send(strings.Repeat("NOOP\r\n", 10))
				c.expect(slices.Repeat([]string{"250"}, 10)...)
			}
		})
	}
}

func TestAHeldReplyLeavesInTime(t *testing.T) {
	const mail, rcpt = "MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n"
	for _, tt := range []struct {
		why          string
		send         string
		hook, server time.Duration // that RCPT takes
		first        string        // comes in one piece
		after        time.Duration
	}{
		{"nobody is slow", mail + rcpt, 0, 0, "250 " + mail + "250 " + rcpt, 0},
		{"the server is slow", mail + rcpt, 0, time.Second, "250 " + mail, 5 * time.Millisecond},
		{"the hook is slow", mail + rcpt, time.Second, 0, "250 " + mail, 5 * time.Millisecond},
		{"nothing is behind it", mail, 0, 0, "250 " + mail, 0},
		{"half a line is behind it", mail + "RC", 0, 0, "250 " + mail, 0},
		{"half a refused chunk is behind it", mail + "BDAT 9\r\n1234", 0, 0, "250 " + mail, 0},
		{"half a chunk is behind it", mail + rcpt + "BDAT 9\r\n1234", 0, 0, "250 " + mail + "250 " + rcpt, 0},
	} {
		bubble(t, tt.why, func(t *testing.T) {
			hook := decide(func(cmd command) (decision, error) {
				if cmd.Verb() == "RCPT" {
					time.Sleep(tt.hook) // in a bubble
				}
				return nil, nil
			})
			c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
				io.WriteString(c, "220 x\r\n")
				for b := make([]byte, 100); ; {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					switch verb, _, _ := strings.Cut(string(b[:n]), " "); verb {
					case "RCPT":
						time.Sleep(tt.server) // in a bubble
						fallthrough
					case "MAIL":
						c.Write(append([]byte("250 "), b[:n]...))
					}
					if tt.send == mail {
						time.Sleep(time.Hour) // before it reads on
					}
				}
			})
			c.SetDeadline(time.Now().Add(time.Minute))
			c.expect("220")
			c.send(tt.send)
			start := time.Now()
			b := make([]byte, 1000)
			n, _ := c.Read(b)
			if d := time.Since(start); string(b[:n]) != tt.first || d > tt.after {
				t.Errorf("%q after %v, want %q within %v", b[:n], d, tt.first, tt.after)
			}
		})
	}
}

func TestCloseEndsAHookThatWaits(t *testing.T) {
	for _, timeout := range []time.Duration{0, time.Hour} {
		bubble(t, fmt.Sprint("HookTimeout ", timeout), func(t *testing.T) {
			waits, ended := make(chan struct{}), make(chan error, 1)
			s := behindGoSMTP(&smtpproxy.Proxy{HookTimeout: timeout, Hook: decideIn(func(ctx *hookContext, cmd command) (decision, error) {
				close(waits)
				<-ctx.Done()
				ended <- ctx.Err()
				return nil, ctx.Err()
			})})
			c := patientPeer(t, s)
			c.expect("220")
			c.send("NOOP\r\n")
			<-waits
			start := time.Now()
			s.close()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the hook's context ended with %v", err)
			}
			c.expectEnd()
			if d := time.Since(start); d > 0 {
				t.Errorf("that took %v", d)
			}
		})
	}
}

// TestCloseDoesNotWaitForAClientThatDoesNotRead closes a connection in the
// middle of RCPT, while the reply to MAIL is held or being written.
func TestCloseDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	closing := func(t *testing.T, after time.Duration, reads bool) time.Duration {
		conns := make(chan net.Conn, 1)
		waits, goesOn := make(chan struct{}), make(chan struct{})
		hook := decide(func(cmd command) (decision, error) {
			if cmd.Verb() == "RCPT" {
				close(waits)
				<-goesOn // without looking at its context, which would send what is held
			}
			return nil, nil
		})
		c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
			conns <- c
			io.WriteString(c, "220 x\r\n")
			b := make([]byte, 100)
			c.Read(b)
			io.WriteString(c, "250 x\r\n")
			if n, err := c.Read(b); err == nil {
				t.Errorf("Read returned %q", b[:n])
			}
		})
		c.expect("220")
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
		<-waits
		time.Sleep(after) // in a bubble, or 0
		if reads {
			go func() {
				if got := c.reply(); got != "250 x" {
					t.Errorf("got reply %q", got)
				}
			}()
		}
		start := time.Now()
		(<-conns).Close()
		defer close(goesOn)
		return time.Since(start)
	}
	bubble(t, "a reply is held, and the client reads", func(t *testing.T) {
		if d := closing(t, time.Millisecond, true); d > 0 {
			t.Errorf("Close took %v", d)
		}
	})
	bubble(t, "a reply is being written", func(t *testing.T) {
		if d := closing(t, time.Second, false); d > 0 {
			t.Errorf("Close took %v", d)
		}
	})
	// A goroutine that waits for a mutex holds up the time in a bubble.
	t.Run("a reply is held", func(t *testing.T) {
		if d := closing(t, 0, false); d > patience/2 {
			t.Errorf("Close took %v", d)
		}
	})
}

func TestTheEndOfTLSDoesNotWaitForAClientThatDoesNotReadIt(t *testing.T) {
	config := serverTLS() // outside of the bubble's time
	bubble(t, "", func(t *testing.T) {
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client = net.Pipe()
			return tls.Server(server, config), tls.Client(client, &tls.Config{InsecureSkipVerify: true}), nil
		})
		took := make(chan time.Duration, 1)
		c := runScript(t, tr, &smtpproxy.Proxy{}, func(c net.Conn) {
			io.WriteString(c, "220 x\r\n")
			start := time.Now()
			io.Copy(io.Discard, c)
			took <- time.Since(start)
		})
		c.SetDeadline(time.Time{})
		c.expect("220")
		c.send("\x16\x03") // which the library answers itself
		c.expect("554")
		if d := <-took; d > time.Second {
			t.Errorf("it was waited for %v", d)
		}
	})
}

// TestNothingFollowsASessionThatHasEndedWhileTheHookWasAsked is about a command
// that nobody is left to execute or to answer.
func TestNothingFollowsASessionThatHasEndedWhileTheHookWasAsked(t *testing.T) {
	write := func(reply string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, reply) }
	}
	for _, tt := range []struct {
		why  string
		end  func(net.Conn)
		want string
	}{
		{"the server has closed", func(c net.Conn) { c.Close() }, ""},
		{"the server has taken its leave", write("421 bye\r\n"), "421 bye\r\n"},
		{"the server has refused what nobody waits for", write("500 x\r\n"), "500 x\r\n"},
		{"the server has accepted what nobody waits for", write("250 x\r\n"), lost},
		{"the server has written nonsense", write("x\r\n"), lost},
	} {
		for _, d := range []decision{pass{}, reply{}} {
			bubble(t, fmt.Sprintf("%s, %T", tt.why, d), func(t *testing.T) {
				conns := make(chan net.Conn, 1)
				hook := decideIn(func(ctx *hookContext, cmd command) (decision, error) {
					if cmd.Line == "RSET" {
						t.Error("the hook was asked again")
						return nil, nil
					}
					tt.end(<-conns)
					<-ctx.Done()
					return d, nil
				})
				c := runScript(t, overPipe(t), &smtpproxy.Proxy{Hook: hook}, func(c net.Conn) {
					conns <- c
					io.WriteString(c, "220 x\r\n")
					for b := make([]byte, 100); ; {
						n, err := c.Read(b)
						if err != nil {
							return
						}
						t.Errorf("the server got %q", b[:n])
						io.WriteString(c, "250 done\r\n")
					}
				})
				c.SetDeadline(time.Now().Add(time.Hour))
				c.expect("220")
				c.send("NOOP\r\nRSET\r\n")
				if got, _ := io.ReadAll(c.r); string(got) != tt.want {
					t.Errorf("the client got %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// halfPipe is an end of a pipe that can be closed on one side, for all that the
// other knows.
type halfPipe struct{ net.Conn }

func (halfPipe) CloseWrite() error { return nil }

func TestAClientThatStopsInARefusedMessageIsNotWaitedForLong(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		s := behindListener(&smtpproxy.Proxy{}, servertest.EarlyRefuser(3))
		tr := newTransport(true, func() (server, client net.Conn, err error) {
			server, client = net.Pipe()
			return halfPipe{server}, client, nil
		})
		c := s.connect(t, tr)
		c.SetDeadline(time.Now().Add(time.Hour))
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n0123456789")
		c.expect("220", "250", "250", "354", "552")
		start := time.Now()
		c.expectEnd()
		if d := time.Since(start); d > time.Minute {
			t.Errorf("it was waited for %v", d)
		}
	})
}

// Without the library, too, it is one deadline for as many commands as come.
func TestADeadlineThatIsSetDuringAReadIsGivenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := overPipe(t)
		accepted := make(chan net.Conn)
		go func() {
			c, _ := new(smtpproxy.Proxy).Listener(tr).Accept()
			accepted <- c
		}()
		client, err := tr.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c := <-accepted
		defer c.Close()
		go io.Copy(io.Discard, client)
		io.WriteString(c, "220 x\r\n")
		buf := make([]byte, 100)
		read := make(chan error)
		go func() { _, err := c.Read(buf); read <- err }()
		synctest.Wait()
		start := time.Now()
		c.SetReadDeadline(start.Add(10 * time.Second))
		time.Sleep(9 * time.Second) // a bubble's: the client uses up most of the deadline
		io.WriteString(client, "NOOP\r\n")
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "250 x\r\n")
		if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}
