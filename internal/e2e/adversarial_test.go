package e2e

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The corpus of attacks has 56 cases: about content (S), commands (C),
// pipelining (P), BDAT (B), STARTTLS (T), AUTH (A), and about what servers, hooks
// and clients do wrong (R). Each has dialogues in testdata/dialogues, whose names
// begin with its number, or tests in beyondDialogues, or both. Of S14, a hook that
// adds a header to content, only the content is left, since hooks can't touch it.
var adversarial = map[string]int{"s": 14, "c": 15, "p": 6, "b": 10, "t": 4, "a": 3, "r": 4}

// beyondDialogues are the tests that hold what a dialogue can't show of a case.
var beyondDialogues = map[string][]string{
	// The end of a message in pieces, and dot-stuffing: all short messages, and
	// all ways to cut them.
	"s11": {"TestExhaustivelyTheEndOfAMessageIsFoundHoweverItIsCut"},
	"s14": {"TestExhaustivelyEachShortMessageEndsWhereItDoesWithoutTheLibrary"},
	// How much memory a client can take.
	"c05": {"TestALineWithoutEndIsRefusedInBoundedMemory"},
	"p06": {"TestAClientThatSendsAheadHasToWait", "TestClosingAServerFreesAClientThatNeverReads"},
	// What a hook may know of a client that doesn't wait.
	"p01": {"TestCommandsThatMayBeFollowedAtOnceAreNotOnesThatMustBeLast"},
	"p02": {"TestAClientThatTalksBeforeItIsGreetedIsKnownForIt"},
	// A handshake that doesn't go on, and what is left of it.
	"t03": {"TestASilentHandshakeEndsWhenItsTimeIsUp", "TestAHandshakeThatFailsOrIsBrokenOffEndsInSilence"},
	// What is logged of a password.
	"a01": {"TestNoCredentialIsPrintedOrLoggedWhateverTheHookDoes"},
	"a03": {"TestALineThatMayBeAPasswordInVainIsMaskedUntilAKnownCommand", "TestAuthIsOfferedAndPassedWhereThePolicyAllowsIt"},
	// Replies that no hook may give: the hooks of dialogues pass everything.
	"r02": {"TestADecisionIsHeldToItsContract", "TestTheLogTellsOfAFailureWhatItTakesToMendIt"},
	// A hook that fails, takes too long, closes, or changes what it was given.
	"r03": {
		"TestAHookThatFailsIsA421AndTheEnd", "TestAHookThatTakesTooLongIsGivenUp",
		"TestNothingFollowsASessionThatHasEndedWhileTheHookWasAsked", "TestHookCannotChangeWhatTheNextCallSees",
	},
	// A client that vanishes, after each octet.
	"r04": {"TestAClientMayVanishAtAnyMoment"},
}

func TestEveryAdversarialCaseIsHeldByADialogueOrATest(t *testing.T) {
	dialogues, err := filepath.Glob("testdata/dialogues/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	cases, beyond := 0, 0
	for letter, n := range adversarial {
		for i := 1; i <= n; i++ {
			cases++
			id := fmt.Sprintf("%s%02d", letter, i)
			shown := slices.ContainsFunc(dialogues, func(name string) bool {
				return strings.HasPrefix(filepath.Base(name), id+"-")
			})
			if !shown && len(beyondDialogues[id]) == 0 {
				t.Errorf("%s has neither a dialogue nor a test", id)
			}
			if len(beyondDialogues[id]) > 0 {
				beyond++
			}
			for _, name := range beyondDialogues[id] {
				if !tests[name] {
					t.Errorf("%s: there is no %s", id, name)
				}
			}
		}
	}
	if cases != 56 || beyond != len(beyondDialogues) {
		t.Errorf("%d cases, and tests of %d that aren't there", cases, len(beyondDialogues)-beyond)
	}
}

func TestEveryTestThatTheSecurityPolicyNamesExists(t *testing.T) {
	policy, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testNames(t)
	named := regexp.MustCompile("`((Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(policy), -1)
	if len(named) < 30 {
		t.Errorf("it names %d tests", len(named))
	}
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("there is no %s", m[1])
		}
	}
}

// testNames returns the names of the tests and fuzz targets in the root, in the packages beside
// it, and in each package of internal.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	var files []string
	for _, pattern := range []string{"../../*_test.go", "../../*/*_test.go", "../*/*_test.go"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches...)
	}
	names := make(map[string]bool)
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Recv == nil &&
				(strings.HasPrefix(d.Name.Name, "Test") || strings.HasPrefix(d.Name.Name, "Fuzz")) {
				names[d.Name.Name] = true
			}
		}
	}
	return names
}
