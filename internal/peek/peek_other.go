//go:build !unix

package peek

func pending(int) bool { return false }
