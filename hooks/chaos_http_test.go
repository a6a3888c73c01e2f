package hooks_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/seed3262c777/smtpproxy/hooks"
)

// ask sends a request to a Chaos, and returns the answer.
func ask(t *testing.T, c *hooks.Chaos, method, body string) (status int, answer string) {
	t.Helper()
	w := httptest.NewRecorder()
	c.ServeHTTP(w, httptest.NewRequest(method, "/any/path", strings.NewReader(body)))
	return w.Code, strings.TrimSpace(w.Body.String())
}

const noRules = `{"seed":0,"rules":[]}`

func TestChaosIsSetAndReadOverHTTP(t *testing.T) {
	c := new(hooks.Chaos)
	const rules = `{"seed":7,"rules":[{"at":"RCPT","client":"192.0.2.0/24","sender":"a","recipient":"@full\\.example$","probability":0.5,` +
		`"skip":1,"times":2,"every":"1h0m0s","code":452,"enhanced":"4.3.1","text":"Full","delay":"1.5s","disconnect":true},{"at":"message","drop":true}]}`
	for _, step := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"GET", "", 200, noRules},
		{"PUT", rules, 200, rules},
		{"GET", "", 200, rules},
		{"PUT", rules, 200, rules}, // what it answers, it takes
		{"HEAD", "", 200, rules},
		{"POST", rules, 405, "method not allowed"},
		{"PATCH", rules, 405, "method not allowed"},
		{"DELETE", "", 200, noRules},
		{"DELETE", "", 200, noRules},
		{"PUT", `{}`, 200, noRules},
		{"PUT", ` {"rules": null} `, 200, noRules},
	} {
		if status, got := ask(t, c, step.method, step.body); status != step.status || got != step.want {
			t.Errorf("%s %s: %d %s", step.method, step.body, status, got)
		}
	}
	c.Set(3, hooks.ChaosRule{At: "NOOP", Delay: hooks.Duration(90 * time.Second)})
	if _, got := ask(t, c, "GET", ""); got != `{"seed":3,"rules":[{"at":"NOOP","delay":"1m30s"}]}` {
		t.Errorf("what Set has set: %s", got)
	}
}

func TestABadRequestIsToldWhyAndChangesNothing(t *testing.T) {
	c := chaosOf(t, hooks.ChaosRule{At: "NOOP", Code: 450})
	seed, before := c.Rules()
	bad := func(body, want string, wantStatus int) {
		t.Helper()
		status, got := ask(t, c, "PUT", body)
		if status != wantStatus || !strings.Contains(got, want) {
			t.Errorf("%.80s: %d %s, want %d %s", body, status, got, wantStatus, want)
		}
		if s, after := c.Rules(); s != seed || !reflect.DeepEqual(before, after) {
			t.Errorf("%.80s: changed: %+v", body, after)
		}
	}
	for _, row := range []struct{ body, want string }{
		{``, "EOF"},
		{`x`, "invalid character"},
		{`[]`, "cannot unmarshal array"},
		{`{"rules":[{"at":"NOOP","code":451}]`, "unexpected EOF"},
		{`{"rules":[{"at":"NOOP","code":451}]} {}`, "something behind the JSON"},
		{`{"rules":[{"at":"NOOP","code":451}]}}`, ""},
		{`{"rule":[{"at":"NOOP","code":451}]}`, `unknown field "rule"`},
		{`{"rules":[{"at":"NOOP","code":451},{"at":"NOOP","Codes":451}]}`, `unknown field "Codes"`},
		{`{"rules":[{"at":"NOOP","code":"451"}]}`, "cannot unmarshal string"},
		{`{"rules":[{"at":"NOOP","code":451.5}]}`, "cannot unmarshal number"},
		{`{"rules":[{"at":"NOOP","delay":"1"}]}`, "missing unit"},
		{`{"rules":[{"at":"NOOP","delay":1}]}`, "cannot unmarshal number"},
		{`{"seed":-1,"rules":[{"at":"NOOP","code":451}]}`, "cannot unmarshal number -1"},
		{`{"rules":[{"at":"NOOP","code":451,"probability":0}]}`, "probability 0: leave the rule out for never"},
		{`{"rules":[{"at":"NOOP","code":451,"probability":"0.5"}]}`, "cannot unmarshal string"},
	} {
		bad(row.body, row.want, http.StatusBadRequest)
	}
	for _, row := range badRules {
		if row.rule.Probability != row.rule.Probability {
			continue // JSON has no NaN
		}
		body, err := json.Marshal(map[string]any{"rules": []hooks.ChaosRule{{At: "NOOP", Code: 451}, row.rule}})
		if err != nil {
			t.Fatal(err)
		}
		bad(string(body), row.want, http.StatusBadRequest)
	}
	bad(`{"rules":[{"at":"NOOP","code":451}],"x":"`+strings.Repeat("x", 1<<20)+`"}`, "too large", http.StatusRequestEntityTooLarge)
}

func TestTheAnswerOverHTTPIsJSON(t *testing.T) {
	srv := httptest.NewServer(new(hooks.Chaos))
	defer srv.Close()
	client := srv.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if got := resp.Header.Get("Content-Type"); got != "application/json" || strings.TrimSpace(string(body)) != noRules {
		t.Errorf("%s: %s", got, body)
	}
	resp, err = client.Post(srv.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Allow"); got != "GET, HEAD, PUT, DELETE" {
		t.Errorf("Allow is %q", got)
	}
}
