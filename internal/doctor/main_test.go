package doctor_test

import (
	"testing"

	"github.com/gworker/gworker/internal/testdb"
)

func TestMain(m *testing.M) { testdb.Main(m) }
