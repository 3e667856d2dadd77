// Package guardtest runs guards as they run in production: the binary for containers in front
// of a Flask service under gunicorn, with the emulators of Firestore and Pub/Sub. Guards and
// services are killed and suspended. The oracle is outside the guard: the service writes each
// run to a log of its own (service.py).
//
// Each test has a project of its own in both emulators.
package guardtest
