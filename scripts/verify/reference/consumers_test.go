package reference

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/phasegate/phasegate/shared/emulatortest"
	"github.com/phasegate/phasegate/shared/pipeline"
)

// block returns the block of code in a page that begins with the line.
func block(t *testing.T, page, line string) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(source), "\n"+line+"\n")
	code, _, ended := strings.Cut(after, "\n```")
	if !ok || !ended {
		t.Fatalf("%s has no block of code that begins with %q", page, line)
	}
	return line + "\n" + code + "\n"
}

// deliveries are pushes in the order in which both consumers get them. The word after the
// id says what happens to the work of that delivery.
func deliveries() string {
	var lines []string
	for _, d := range [][3]string{
		{"a~1/summary", "m1", "fails"}, // rolled back; is delivered again
		{"a~1/summary", "m1", "works"},
		{"a~1/summary", "m1", "works"}, // Pub/Sub delivers it twice
		{"a~1/summary", "m2", "works"}, // Phasegate published a copy
		{"a~2/summary", "m3", "works"}, // another batch
		{"a~2/offense", "m4", "works"}, // another processor
		{"a~2/offense", "m5", "fails"}, // a copy: its work does not begin
	} {
		data := fmt.Sprintf(`{"source_table":"summary","game_date":"2026-02-03","trigger_id":%q}`, d[0])
		envelope := fmt.Sprintf(`{"message":{"data":%q,"messageId":%q},"subscription":"s"}`,
			base64.StdEncoding.EncodeToString([]byte(data)), d[1])
		line, _ := json.Marshal(map[string]any{"envelope": json.RawMessage(envelope), "work": d[2]})
		lines = append(lines, string(line))
	}
	return strings.Join(lines, "\n")
}

// Each line is the answer to a delivery; the last one has the triggers whose work took effect.
const answers = `error
204
204
204
204
204
204
a~1/summary a~2/summary a~2/offense
`

const pythonDriver = `
import json, sqlite3, sys
import consumer

db = sqlite3.connect(sys.argv[1])
consumer.create(db)
db.execute("CREATE TABLE effects (trigger_id TEXT)")
db.commit()
for line in sys.stdin:
    delivery = json.loads(line)

    def work(db, trigger):
        db.execute("INSERT INTO effects VALUES (?)", (trigger["trigger_id"],))
        if delivery["work"] == "fails":
            raise RuntimeError("the process dies")

    try:
        print(consumer.receive(db, delivery["envelope"], work))
    except RuntimeError:
        print("error")
print(*[row[0] for row in db.execute("SELECT trigger_id FROM effects ORDER BY rowid")])
`

const goDriver = `package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	_ "modernc.org/sqlite"
)

func main() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", os.Args[1])
	if err == nil {
		err = create(ctx, db)
	}
	if err == nil {
		_, err = db.Exec("CREATE TABLE effects (trigger_id TEXT)")
	}
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var delivery struct {
			Envelope json.RawMessage
			Work     string
		}
		if err := json.Unmarshal(lines.Bytes(), &delivery); err != nil {
			log.Fatal(err)
		}
		err := receive(ctx, db, delivery.Envelope, func(tx *sql.Tx, t Trigger) error {
			if _, err := tx.Exec("INSERT INTO effects VALUES (?)", t.ID); err != nil {
				return err
			}
			if delivery.Work == "fails" {
				return errors.New("the process dies")
			}
			return nil
		})
		if err != nil {
			fmt.Println("error")
		} else {
			fmt.Println(204)
		}
	}
	var ids []string
	rows, err := db.Query("SELECT trigger_id FROM effects ORDER BY rowid")
	if err != nil {
		log.Fatal(err)
	}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			log.Fatal(err)
		}
		ids = append(ids, id)
	}
	fmt.Println(strings.Join(ids, " "))
}
`

func TestDropCopies_ConsumersOfThePageWorkEachTriggerOnce(t *testing.T) {
	const page = "docs/how-to/drop-copies.md"
	for _, test := range []struct {
		language string
		files    map[string]string
		command  func(t *testing.T, dir string) []string
	}{
		{"Python", map[string]string{"consumer.py": block(t, page, "# consumer.py"), "main.py": pythonDriver},
			func(t *testing.T, dir string) []string {
				return []string{emulatortest.Python(t), "main.py", "effects.db"}
			}},
		{"Go", map[string]string{"consumer.go": block(t, page, "// consumer.go"), "main.go": goDriver, "go.mod": read(t, "go.mod"), "go.sum": read(t, "go.sum")},
			func(t *testing.T, dir string) []string { return []string{"go", "run", ".", "effects.db"} }},
	} {
		t.Run(test.language, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			command := test.command(t, dir)
			cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
			cmd.Dir, cmd.Stdin, cmd.Stderr = dir, strings.NewReader(deliveries()), os.Stderr
			cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
			out, err := cmd.Output()
			if err != nil || string(out) != answers {
				t.Errorf("answers: %v\n%swant:\n%s", err, out, answers)
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// README.md shows a pipeline file that works as it stands.
func TestReadme_PipelineFileIsValid(t *testing.T) {
	p, err := pipeline.Parse([]byte(block(t, "README.md", "schema: 1")))
	if err != nil {
		t.Fatal(err)
	}
	if warnings := p.Warnings(); len(p.Transitions) != 1 || len(warnings) > 1 {
		t.Errorf("%d transitions, warnings %v", len(p.Transitions), warnings)
	}
}

func TestReadme_CanBeReadInTenMinutes(t *testing.T) {
	if n := strings.Count(read(t, "README.md"), "\n"); n > 250 {
		t.Errorf("README.md has %d lines, 250 are allowed: move details to docs", n)
	}
}
