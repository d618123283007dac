package contain

// Ours marks a type as one of ours that implements an interface of the user's: its
// methods return. The type embeds it.
type Ours struct{}

func (Ours) ours() {}

// IsOurs reports whether a value is of a type that is marked so.
func IsOurs(value any) bool {
	_, is := value.(interface{ ours() })
	return is
}
