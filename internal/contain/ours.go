package contain

// Ours marks a type of gworker's that implements an interface of the user's: its methods
// neither panic nor end their goroutine. The type embeds it.
type Ours struct{}

func (Ours) ours() {}

// IsOurs reports whether the type of a value is marked with Ours.
func IsOurs(value any) bool {
	_, is := value.(interface{ ours() })
	return is
}
