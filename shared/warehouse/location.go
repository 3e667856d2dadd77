package warehouse

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/api/googleapi"
)

// Location returns where BigQuery keeps a dataset, such as US or europe-west3; "" when there is
// no such dataset.
func (w *Warehouse) Location(ctx context.Context, dataset string) (string, error) {
	client, err := w.Client(ctx)
	if err != nil {
		return "", err
	}
	meta, err := client.Dataset(dataset).Metadata(ctx)
	var api *googleapi.Error
	if errors.As(err, &api) && api.Code == http.StatusNotFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("dataset %s: %w", dataset, err)
	}
	return meta.Location, nil
}
