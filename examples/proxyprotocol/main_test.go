package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOncePlaysBothSessions(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-once", "-addr", "127.0.0.1:0"}, &out); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	want := regexp.MustCompile(`(?s)^a load balancer, with a header of version 1: "PROXY TCP4 192\.0\.2\.7 198\.51\.100\.1 40000 25\\r\\n"
S:    220 .*
hook: MAIL FROM:<sender@example\.org> by 192\.0\.2\.7: TLS seen "", told none
S:    530 5\.7\.0 [^\n]*
a load balancer, with a header of version 2 that tells of TLS:
S:    220 .*
hook: MAIL FROM:<sender@example\.org> by 192\.0\.2\.7: TLS seen "", told TLSv1\.3 TLS_AES_256_GCM_SHA384, SNI "mail\.example\.com", certificate of "client\.example\.org"
S:    250 .*
mail: from "sender@example\.org" to \["one@example\.com"\], 34 octets, by 192\.0\.2\.7 port 40000, to 198\.51\.100\.1 port 465
S:    250 [^\n]*
C:    QUIT
S:    221 [^\n]*
$`)
	if !want.MatchString(out.String()) {
		t.Errorf("got\n%s\nwant a match of\n%v", &out, want)
	}
}

// service is the server, with what it prints.
type service struct {
	addr string

	mu  sync.Mutex
	out bytes.Buffer
}

// Write implements io.Writer.
func (s *service) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

// printed returns what was printed, and forgets it.
func (s *service) printed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.out.Reset()
	return s.out.String()
}

func start(t *testing.T, timeout time.Duration, trust ...string) *service {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := behindBalancers(tcp, trust, timeout)
	if err != nil {
		t.Fatal(err)
	}
	s := &service{addr: tcp.Addr().String()}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l, log.New(s, "", 0), func() error { return nil }, false) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// balancer is a load balancer's connection.
type balancer struct {
	net.Conn
	r *bufio.Reader
}

func (s *service) dial(t *testing.T) balancer {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return balancer{c, bufio.NewReader(c)}
}

// say sends something, and returns the last line of the reply, empty if there is none.
func (b balancer) say(octets string) string {
	io.WriteString(b, octets)
	for {
		line, err := b.r.ReadString('\n')
		if err != nil {
			return ""
		}
		if line[3] == ' ' {
			return strings.TrimSpace(line)
		}
	}
}

// version2 returns a header of version 2, with a command and TLVs.
func version2(command byte, from, to string, tlvs ...string) string {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	var body bytes.Buffer
	body.Write(src.Addr().AsSlice())
	body.Write(dst.Addr().AsSlice())
	binary.Write(&body, binary.BigEndian, []uint16{src.Port(), dst.Port()})
	body.WriteString(strings.Join(tlvs, ""))
	family := byte(0x11)
	if src.Addr().Is6() {
		family = 0x21
	}
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20|command, family)
	return string(append(binary.BigEndian.AppendUint16(header, uint16(body.Len())), body.Bytes()...))
}

func tlv(kind byte, value string) string {
	return string(append([]byte{kind}, byte(len(value)>>8), byte(len(value)))) + value
}

// ssl returns a TLV of TLS, with what it verifies and its own.
func ssl(client byte, verify uint32, subs ...string) string {
	return tlv(0x20, string(binary.BigEndian.AppendUint32([]byte{client}, verify))+strings.Join(subs, ""))
}

const (
	local  = 0
	proxy  = 1
	client = "192.0.2.7:40000"
	server = "198.51.100.1:25"
)

var (
	version = tlv(0x21, "TLSv1.2")
	name    = tlv(0x22, "client.example.org")
	cipher  = tlv(0x23, "ECDHE-RSA-AES128-GCM-SHA256")
	sni     = tlv(0x02, "mail.example.com")
)

func TestWhatTheHeaderTellsIsTheClient(t *testing.T) {
	s := start(t, 5*time.Second, "127.0.0.0/8")
	for _, tt := range []struct{ why, header, ip, told string }{
		{"version 1", "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n", "192.0.2.7", "none"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n", "2001:db8::7", "none"},
		{"version 1, of nobody knows whom", "PROXY UNKNOWN\r\n", "127.0.0.1", "none"},
		{"version 2", version2(proxy, client, server), "192.0.2.7", "none"},
		{"version 2, IPv6", version2(proxy, "[2001:db8::7]:40000", "[2001:db8::1]:25"), "2001:db8::7", "none"},
		{"send-proxy-v2-ssl without TLS", version2(proxy, client, server, ssl(0, 1)), "192.0.2.7", "none"},
		{"send-proxy-v2-ssl", version2(proxy, client, server, ssl(1, 0, version)), "192.0.2.7", "TLSv1.2"},
		{"all that HAProxy can tell", version2(proxy, client, server, sni, ssl(3, 0, version, name, cipher)), "192.0.2.7",
			`TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256, SNI "mail.example.com", certificate of "client.example.org"`},
		{"a certificate that isn't verified", version2(proxy, client, server, ssl(3, 18, version, name)), "192.0.2.7", "TLSv1.2"},
		{"a name without a certificate", version2(proxy, client, server, ssl(1, 0, version, name)), "192.0.2.7", "TLSv1.2"},
		{"TLS without its version", version2(proxy, client, server, ssl(1, 0)), "192.0.2.7", "none"},
		{"TLVs that are cut short", version2(proxy, client, server, ssl(1, 0, version), sni[:4]), "192.0.2.7", "none"},
		{"another's TLVs, as AWS's", version2(proxy, client, server, tlv(0xea, "\x01vpce-1")), "192.0.2.7", "none"},
		{"the load balancer's own check", version2(local, client, server, ssl(1, 0, version)), "127.0.0.1", "none"},
	} {
		b := s.dial(t)
		b.say(tt.header)
		b.say("EHLO client.example\r\n")
		reply := b.say("MAIL FROM:<a@example.org>\r\n")
		want := fmt.Sprintf("hook: MAIL FROM:<a@example.org> by %s: TLS seen \"\", told %s\n", tt.ip, tt.told)
		if got := s.printed(); got != want {
			t.Errorf("%s: printed %q, want %q", tt.why, got, want)
		}
		if accepted := strings.HasPrefix(reply, "250 "); accepted != (tt.told != "none") {
			t.Errorf("%s: MAIL got %q", tt.why, reply)
		}
		b.Close()
	}
}

func TestWithoutAHeaderThereIsNoServer(t *testing.T) {
	s := start(t, 5*time.Second, "127.0.0.0/8")
	for _, tt := range []struct{ why, first string }{
		{"a client that speaks SMTP", "EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n"},
		{"half of a header", "PROXY TCP4 192.0.2.7\r\n"},
		{"an address that is none", "PROXY TCP4 192.0.2.777 198.51.100.1 40000 25\r\n"},
		{"a header too long", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n"},
	} {
		if got := s.dial(t).say(tt.first); got != "" {
			t.Errorf("%s: got %q", tt.why, got)
		}
	}
	if got := s.printed(); got != "" {
		t.Errorf("the hook was asked: %s", got)
	}
}

func TestASecondHeaderIsNoHeader(t *testing.T) {
	s := start(t, 5*time.Second, "127.0.0.0/8")
	b := s.dial(t)
	b.say("PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n")
	if got := b.say("PROXY TCP4 192.0.2.8 198.51.100.1 40000 25\r\n"); !strings.HasPrefix(got, "50") {
		t.Errorf("a client's own header got %q", got)
	}
	b.say("EHLO client.example\r\n")
	b.say("MAIL FROM:<a@example.org>\r\n")
	if got := s.printed(); !strings.Contains(got, "by 192.0.2.7:") {
		t.Errorf("printed %q", got)
	}
}

func TestWhoIsNotInTheListIsHungUpOn(t *testing.T) {
	s := start(t, 5*time.Second, "192.0.2.0/24", "2001:db8::1")
	for _, first := range []string{"", "EHLO client.example\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"} {
		if got := s.dial(t).say(first); got != "" {
			t.Errorf("%q got %q", first, got)
		}
	}
}

func TestAListThatIsNoneIsAnError(t *testing.T) {
	err := run(t.Context(), []string{"-addr", "127.0.0.1:0", "-trust", "balancer.example"}, io.Discard)
	if err == nil {
		t.Error("no error")
	}
}

func TestWhoIsSilentHoldsUpNobodyAndIsGoneInTime(t *testing.T) {
	const timeout = time.Second
	s := start(t, timeout, "127.0.0.0/8")
	var silent []balancer
	begun := time.Now()
	for range 20 {
		silent = append(silent, s.dial(t))
	}
	b := s.dial(t)
	if got := b.say("PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n"); !strings.HasPrefix(got, "220 ") {
		t.Errorf("got %q", got)
	}
	if took := time.Since(begun); took >= timeout {
		t.Errorf("it has waited for %v", took)
	}
	for _, b := range silent {
		if got := b.say(""); got != "" {
			t.Errorf("who is silent got %q", got)
		}
	}
	if took := time.Since(begun); took < timeout || took > 5*timeout {
		t.Errorf("who is silent was hung up on after %v", took)
	}
	if got := b.say("NOOP\r\n"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("then the other got %q", got)
	}
}
