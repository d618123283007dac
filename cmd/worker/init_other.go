//go:build !unix

package main

func isInit() bool { return false }

func supervise([]string) int { return statusFailure }
