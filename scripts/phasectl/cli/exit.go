// Package cli has what all commands share: their exit codes, and how they write to a terminal.
package cli

// Exit codes; 0 is ok. 64 and 70 are those of sysexits.h.
const (
	ExitFindings = 1
	ExitUnknown  = 2
	ExitUsage    = 64
	ExitSoftware = 70
)

// ExitError carries an exit code with an error.
type ExitError struct {
	Code int
	Err  error
}

func (e ExitError) Error() string { return e.Err.Error() }
func (e ExitError) Unwrap() error { return e.Err }

// Usage, Findings and Unknown give an error its exit code.
func Usage(err error) error    { return WithCode(ExitUsage, err) }
func Findings(err error) error { return WithCode(ExitFindings, err) }
func Unknown(err error) error  { return WithCode(ExitUnknown, err) }

// WithCode gives an error an exit code; nil stays nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return ExitError{code, err}
}
