package db

// The queries of this folder become internal/dbgen: sqlc writes the typed
// methods, querytexts the list of all texts. Both are pinned in tools/go.mod.

//go:generate go -C ../tools tool sqlc generate -f ../sqlc.yaml
//go:generate go -C ../tools run ./querytexts ../internal/dbgen
