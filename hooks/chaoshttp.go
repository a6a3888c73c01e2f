package hooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// chaosConfig is what is set and read over HTTP.
type chaosConfig struct {
	Seed  uint64      `json:"seed"`
	Rules []ChaosRule `json:"rules"`
}

// UnmarshalJSON implements json.Unmarshaler. A field that ChaosRule doesn't have is an error,
// and so is a probability of 0: it could be meant to be never.
func (r *ChaosRule) UnmarshalJSON(data []byte) error {
	type fields ChaosRule
	rule := struct {
		fields
		Probability *float64 `json:"probability"`
	}{}
	if err := decodeStrictly(data, &rule); err != nil {
		return err
	}
	*r = ChaosRule(rule.fields)
	if rule.Probability != nil {
		if *rule.Probability == 0 {
			return errors.New("probability 0: leave the rule out for never, and the probability for always")
		}
		r.Probability = *rule.Probability
	}
	return nil
}

// decodeStrictly decodes JSON into a value that has all its fields.
func decodeStrictly(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something behind the JSON")
	}
	return nil
}

// maxChaosConfig is how many octets a request may have.
const maxChaosConfig = 1 << 20

// ServeHTTP implements http.Handler. GET returns the seed and the rules as JSON, whatever the
// path is, PUT sets them in the place of those before, and DELETE takes the rules away:
//
//	curl -X PUT -d '{"seed": 1, "rules": [{"at": "RCPT", "recipient": "@full", "code": 452}]}' http://127.0.0.1:8025/
//
// The fields of a rule are those of ChaosRule, in lower case. The answer is what is set by then,
// which PUT takes as well. What isn't JSON, has a field that there isn't, or is no rule, gets a
// 400 with the reason, more than 1 MiB a 413, and nothing has changed then.
//
// Whoever reaches it can refuse all mail, and let the server wait: it belongs on a loopback
// address, or behind something that asks who it is.
func (c *Chaos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodDelete:
		c.Set(0) // without rules, there is nothing that could be wrong
	case http.MethodPut:
		if status, err := c.put(http.MaxBytesReader(w, r.Body, maxChaosConfig)); err != nil {
			http.Error(w, err.Error(), status)
			return
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	seed, rules := c.Rules()
	json.NewEncoder(w).Encode(chaosConfig{seed, rules})
}

// put sets the rules in a request; status is that of the answer, if there is an error.
func (c *Chaos) put(body io.Reader) (status int, err error) {
	data, err := io.ReadAll(body)
	if errors.As(err, new(*http.MaxBytesError)) {
		return http.StatusRequestEntityTooLarge, err
	} else if err != nil {
		return http.StatusBadRequest, err
	}
	var cfg chaosConfig
	if err := decodeStrictly(data, &cfg); err != nil {
		return http.StatusBadRequest, err
	}
	return http.StatusBadRequest, c.Set(cfg.Seed, cfg.Rules...)
}
