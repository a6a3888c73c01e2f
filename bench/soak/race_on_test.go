//go:build race

package main

// go-smtp v0.25.1 has data races of its own where a message in chunks is broken
// off. The race detector would report those.
const tears = false
