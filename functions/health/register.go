package health

import (
	"github.com/GoogleCloudPlatform/functions-framework-go/functions"

	"github.com/phasegate/phasegate/shared/app/production"
)

// init registers the name that the platform looks up; it opens nothing.
func init() {
	functions.HTTP("health", New(production.New().Get).ServeHTTP)
}
