//go:build !linux

package devpg

const memoryDir = "" // none that every system of the kind has

func memoryBase(account) (dir string, ok bool) { return "", false }
