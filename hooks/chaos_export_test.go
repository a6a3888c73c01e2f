package hooks

// ChaosConns returns how many connections a Chaos knows.
func ChaosConns(c *Chaos) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.conns)
}
