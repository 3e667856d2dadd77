package devcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/phasegate/phasegate/scripts/phasectl/cli"
)

// Ready is what a running local environment says of itself. It is kept in [ReadyFile].
type Ready struct {
	Schema    int               `json:"schema"`
	Project   string            `json:"project"`
	PubSub    string            `json:"pubsub"`
	BigQuery  string            `json:"bigquery"` // "" while nothing needs it
	Store     string            `json:"store"`
	Functions map[string]string `json:"functions"`
	Slack     string            `json:"slack,omitempty"` // address of a webhook
	Prefix    string            `json:"prefix,omitempty"`
	Tables    string            `json:"tables,omitempty"`
	Shadow    bool              `json:"shadow,omitempty"`
	Pipeline  string            `json:"pipeline_file,omitempty"`
}

// ReadyFile is in the folder of the documents while the environment runs.
const ReadyFile = "local.json"

// DataFlag says where the local environment keeps its documents.
func DataFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "data", defaultData(), "folder of the documents, kept between runs")
}

func defaultData() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "phasegate")
}

// ReadReady reads what the environment that runs on a folder says.
func ReadReady(data string) (r Ready, err error) {
	b, err := os.ReadFile(filepath.Join(data, ReadyFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("no local environment runs on %s; start one: phasectl local", data)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, cli.Unknown(err)
}

// Variable is one of the environment.
type Variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (v Variable) String() string { return "export " + v.Name + "=" + cli.Quote(v.Value) }

// Variables point other commands at the environment.
func (r Ready) Variables() []Variable {
	shadow := ""
	if r.Shadow {
		shadow = "true"
	}
	return slices.DeleteFunc([]Variable{{"GOOGLE_CLOUD_PROJECT", r.Project}, {"PUBSUB_EMULATOR_HOST", r.PubSub}, {"PHASEGATE_STORE", r.Store},
		{"BIGQUERY_EMULATOR_HOST", r.BigQuery}, {"SLACK_WEBHOOK_URL", r.Slack}, {"PHASEGATE_PREFIX", r.Prefix}, {"PHASEGATE_TABLES", r.Tables},
		{"PHASEGATE_SHADOW", shadow}, {"PIPELINE_FILE", r.Pipeline}}, func(v Variable) bool { return v.Value == "" })
}
