#!/bin/sh
# copy.sh DIRECTORY copies the emulator and its SQL engine there, makes them faster, and writes
# the go.mod that builds bqemu with the copies: DIRECTORY/bqemu.mod. Their results stay the same.
set -eu
mkdir -p "$1"
to=$(cd "$1" && pwd)
cd "$(dirname "$0")"
go=${GO:-go}
emulator=github.com/goccy/bigquery-emulator
engine=github.com/goccy/googlesqlite

rm -rf "$to/emulator" "$to/engine"
cp -R "$($go list -f '{{.Module.Dir}}' $emulator/server)" "$to/emulator"
cp -R "$($go list -f '{{.Module.Dir}}' $engine)" "$to/engine"
chmod -R u+w "$to/emulator" "$to/engine"

# edit FILE SCRIPT edits a file by sed, and fails if that changes nothing.
edit() {
	sed "$2" "$to/$1" >"$to/edited"
	if cmp -s "$to/edited" "$to/$1"; then
		echo "$1 has changed, no line matches $2: edit scripts/dev/bqemu/copy.sh" >&2
		exit 1
	fi
	mv "$to/edited" "$to/$1"
}

# A result is there when a job has been begun. The emulator looks for it after 100 ms, and
# serves no other request meanwhile.
edit emulator/internal/metadata/job.go 's/NewTicker(100 \* time.Millisecond)/NewTicker(time.Millisecond)/'

# The emulator reads all datasets and tables of a project before each request, by six queries.
# The copy keeps them until bqemu says that they may have changed.
edit emulator/internal/metadata/repository.go 's/^func (r \*Repository) FindProject(/func (r *Repository) readProject(/'
edit emulator/server/middleware.go 's/^[[:space:]]*project, err := server.metaRepo.FindProject(ctx, projectID)$/server.metaRepo.Forget(projectID, r.Header.Get("Bqemu-Changed"))\
&/'
cat >"$to/emulator/internal/metadata/kept.go" <<'END'
package metadata

import "context"

// kept are the projects as they were read last. Requests pass one at a time.
var kept = map[string]*Project{}

func (r *Repository) Forget(id, changed string) {
	if changed != "" {
		delete(kept, id)
	}
}

func (r *Repository) FindProject(ctx context.Context, id string) (*Project, error) {
	if p := kept[id]; p != nil {
		return p, nil
	}
	p, err := r.readProject(ctx, id)
	if err == nil && p != nil {
		kept[id] = p
	}
	return p, err
}
END

# For each project and dataset the engine makes a catalog with all functions of GoogleSQL. They
# are looked for in the outermost catalog alone.
edit engine/internal/catalog.go 's/sub := newSimpleCatalog(name)$/sub, _ := googlesql.NewSimpleCatalog(name, tf())/'

cp go.mod "$to/bqemu.mod"
cp go.sum "$to/bqemu.sum"
$go mod edit -replace "$emulator=$to/emulator" -replace "$engine=$to/engine" "$to/bqemu.mod"
