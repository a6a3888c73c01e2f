package fronts

import (
	"os"
	"testing"

	"github.com/seed3262c777/smtpproxy/internal/fronts/program"
)

func TestMain(m *testing.M) { os.Exit(program.Main(m)) }
