package cron

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/gworker/gworker/internal/wait"
)

// ErrDuplicate is returned for an item whose identifier another item has.
var ErrDuplicate = errors.New("another cron item has this identifier")

// Set is the items of one worker. It is safe for concurrent use.
type Set struct {
	mu      sync.Mutex
	items   []*member
	changed chan struct{}
}

// member is an item in a set.
type member struct {
	Item
	// added is when it was added; zero for the items of NewSet.
	added time.Time
}

// NewSet makes a set of items with different identifiers.
func NewSet(items []Item) *Set {
	s := &Set{changed: make(chan struct{}, 1)}
	for _, item := range items {
		s.items = append(s.items, &member{Item: item})
	}
	return s
}

// Add adds an item, which is due from then on.
func (s *Set) Add(item Item, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(item.Identifier) >= 0 {
		return ErrDuplicate
	}
	s.items = append(s.items, &member{Item: item, added: now})
	wait.Wake(s.changed)
	return nil
}

// Remove removes an item and reports whether it was there.
func (s *Set) Remove(identifier string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.find(identifier)
	if place < 0 {
		return false
	}
	s.items = slices.Delete(s.items, place, place+1)
	return true
}

// Items returns the items in the order in which they were added.
func (s *Set) Items() []Item {
	members := s.members()
	items := make([]Item, len(members))
	for i, m := range members {
		items[i] = m.Item
	}
	return items
}

func (s *Set) members() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.items)
}

func (s *Set) find(identifier string) int {
	return slices.IndexFunc(s.items, func(m *member) bool { return m.Identifier == identifier })
}
