//go:build !race

package main

const tears = true
