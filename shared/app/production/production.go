// Package production opens the application as deployed functions use it: the
// process's environment, Firestore, the machine's clock, logs on standard output.
package production

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/phasegate/phasegate/shared/app"
	"github.com/phasegate/phasegate/shared/store"
	"github.com/phasegate/phasegate/shared/store/firestore"
)

// New returns an application that opens at the first request.
func New() *app.Lazy {
	return &app.Lazy{Open: func(ctx context.Context) (*app.App, error) {
		c, err := app.FromEnv()
		if err != nil {
			return nil, err
		}
		return app.Open(ctx, c, Firestore, time.Now, os.Stdout)
	}}
}

// Firestore is an [app.Stores] for firestore and firestore:DATABASE.
func Firestore(ctx context.Context, c app.Config) (store.Store, error) {
	kind, database, _ := strings.Cut(c.Store, ":")
	if kind != "firestore" {
		return nil, fmt.Errorf("PHASEGATE_STORE: %q: functions know firestore alone", c.Store)
	}
	if database == "" {
		database = "(default)"
	}
	s, err := firestore.Open(ctx, c.Project, database)
	if err != nil {
		return nil, err
	}
	return s, nil
}
