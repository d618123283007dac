//go:build !linux

package main

func asInit() int { panic("only on Linux") }
