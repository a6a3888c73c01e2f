package hooks

import (
	"encoding/json"
	"net/http"
)

// chaosConfig is what is set and read over HTTP.
type chaosConfig struct {
	Seed  uint64      `json:"seed,omitempty"`
	Rules []ChaosRule `json:"rules"`
}

// maxChaosConfig is how many octets are read of a request.
const maxChaosConfig = 1 << 20

// ServeHTTP implements http.Handler: GET returns the rules as JSON, PUT sets them, DELETE
// takes them away:
//
//	curl -X PUT -d '{"seed": 1, "rules": [{"at": "RCPT", "recipient": "@full\\.example>", "code": 452}]}' http://127.0.0.1:8025/chaos
//
// Rules that can't be get a 400 with the reason, and nothing has changed. Whoever reaches it
// can refuse all mail: it belongs on the address of a test, not into a network.
func (c *Chaos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodDelete:
		c.Set(0) // without rules, there is nothing that could be wrong
	case http.MethodPut:
		var cfg chaosConfig
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxChaosConfig))
		d.DisallowUnknownFields()
		err := d.Decode(&cfg)
		if err == nil {
			err = c.Set(cfg.Seed, cfg.Rules...)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(chaosConfig{Rules: c.Rules()})
}
