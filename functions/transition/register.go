package transition

import (
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/phasegate/phasegate/shared/app/production"
)

// init registers the name that the platform looks up; it opens nothing.
// functions.HTTP, not functions.CloudEvent: the latter's shared receiver hangs for
// every later request once one arrives with its context cancelled.
func init() {
	functions.HTTP("transition", New(production.New().Get).ServeHTTP)
}
