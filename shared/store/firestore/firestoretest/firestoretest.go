// Package firestoretest puts limits of Firestore in front of the emulator, which has none.
// [Start] serves a proxy: clients use its address as FIRESTORE_EMULATOR_HOST, in this process
// or in others.
//
// # Limits
//
//   - Commits to one document run one after another, each for [Limits.Commit]. Firestore's
//     documentation gives one sustained write a second to a document as the rate to plan for
//     (https://cloud.google.com/firestore/quotas, "Maximum sustained write rate to a document":
//     1 per second); bursts are faster, and 100 ms a commit is a usual latency.
//   - More than [Limits.Waiting] waiting commits to one document are contention: the next one is
//     answered ABORTED, as Firestore answers "Too much contention on these documents"
//     (https://cloud.google.com/firestore/docs/transaction-data-contention).
//   - A commit can fail with UNAVAILABLE or DEADLINE_EXCEEDED before or after it was applied
//     ([Proxy.Fail]): https://cloud.google.com/firestore/docs/understand-error-codes.
package firestoretest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The calls that are looked into.
const (
	commitMethod = "/google.firestore.v1.Firestore/Commit"
	getMethod    = "/google.firestore.v1.Firestore/BatchGetDocuments"
	queryMethod  = "/google.firestore.v1.Firestore/RunQuery"
)

// maxMessage is above the largest request that Firestore takes, 10 MiB.
const maxMessage = 16 << 20

// Limits are those of one document.
type Limits struct {
	Commit  time.Duration // how long a commit keeps its documents
	Waiting int           // commits that may wait for a document
}

// Usual are the limits that figures in docs/explanation/performance.md are taken with.
var Usual = Limits{Commit: 100 * time.Millisecond, Waiting: 10}

// A Fault is the error that a commit gets instead of its answer.
type Fault struct {
	Code    codes.Code // OK: no fault
	Applied bool       // whether the commit is applied nevertheless
}

// Counts are the calls since the proxy started.
type Counts struct {
	Calls   map[string]int // by the method's full name
	Commits map[string]int // by the document's full name
	Aborted int            // commits that were refused for contention
	Read    int            // documents that were read, absent ones included; Firestore bills these
	Written int            // documents that were written
}

// A Proxy stands in front of an emulator.
type Proxy struct {
	Addr   string // host:port
	limits Limits
	client *grpc.ClientConn

	mu     sync.Mutex
	queues map[string]*queue
	counts Counts
	fail   func(commit int) Fault
	tried  int
}

// queue is the line of commits to one document.
type queue struct {
	turn    chan struct{} // holds one element while no commit is at work
	waiting int
}

// Start serves a proxy in front of the emulator until the test ends.
func Start(t testing.TB, emulator string, l Limits) *Proxy {
	t.Helper()
	client, err := grpc.NewClient(emulator, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), limits: l, client: client, queues: map[string]*queue{},
		counts: Counts{Calls: map[string]int{}, Commits: map[string]int{}}}
	server := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(p.handle), grpc.MaxRecvMsgSize(maxMessage))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(<-done, client.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// Fail asks fault for each commit, in the order of their arrival from 0.
func (p *Proxy) Fail(fault func(commit int) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail, p.tried = fault, 0
}

// Counts returns the calls so far.
func (p *Proxy) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.Calls, c.Commits = maps.Clone(c.Calls), maps.Clone(c.Commits)
	return c
}

// handle passes one call on, message by message in both directions.
func (p *Proxy) handle(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	p.mu.Lock()
	p.counts.Calls[method]++
	p.mu.Unlock()
	if method == commitMethod {
		return p.commit(in)
	}
	ctx, cancel := context.WithCancel(outgoing(in.Context()))
	defer cancel()
	out, err := p.client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	go func() {
		for {
			var message []byte
			if in.RecvMsg(&message) != nil {
				_ = out.CloseSend() // the answer's end carries the error
				return
			}
			if out.SendMsg(&message) != nil {
				return
			}
		}
	}()
	for {
		var message []byte
		if err := out.RecvMsg(&message); errors.Is(err, io.EOF) {
			in.SetTrailer(out.Trailer())
			return nil
		} else if err != nil {
			return err
		}
		p.read(method, message)
		if err := in.SendMsg(&message); err != nil {
			return err
		}
	}
}

// read counts the document that an answer has, or says to be absent.
func (p *Proxy) read(method string, answer []byte) {
	var has bool
	switch method {
	case getMethod:
		var got firestorepb.BatchGetDocumentsResponse
		has = proto.Unmarshal(answer, &got) == nil && got.Result != nil
	case queryMethod:
		var got firestorepb.RunQueryResponse
		has = proto.Unmarshal(answer, &got) == nil && got.Document != nil
	}
	if has {
		p.mu.Lock()
		p.counts.Read++
		p.mu.Unlock()
	}
}

func (p *Proxy) commit(in grpc.ServerStream) error {
	var request, answer []byte
	if err := in.RecvMsg(&request); err != nil {
		return err
	}
	var commit firestorepb.CommitRequest
	if err := proto.Unmarshal(request, &commit); err != nil {
		return status.Errorf(codes.Internal, "decode the commit: %v", err)
	}
	leave, err := p.enter(in.Context(), documents(&commit))
	if err != nil {
		return err
	}
	defer leave()
	fault := p.fault()
	if fault.Code != codes.OK && !fault.Applied {
		return status.Error(fault.Code, "lost before it was applied")
	}
	if err := p.client.Invoke(outgoing(in.Context()), commitMethod, &request, &answer); err != nil {
		return err
	}
	p.mu.Lock()
	p.counts.Written += len(documents(&commit))
	p.mu.Unlock()
	if fault.Code != codes.OK {
		return status.Error(fault.Code, "lost after it was applied")
	}
	return in.SendMsg(&answer)
}

func (p *Proxy) fault() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail == nil {
		return Fault{}
	}
	p.tried++
	return p.fail(p.tried - 1)
}

// enter waits until no other commit is at work on the documents, then for the time that this
// commit takes. The documents are sorted, so that two commits cannot wait for each other.
func (p *Proxy) enter(ctx context.Context, names []string) (leave func(), err error) {
	var held []*queue
	leave = func() {
		for _, q := range held {
			q.turn <- struct{}{}
		}
	}
	for _, name := range names {
		q, err := p.join(name)
		if err != nil {
			leave()
			return nil, err
		}
		select {
		case <-q.turn:
			held = append(held, q)
			p.left(q)
		case <-ctx.Done():
			p.left(q)
			leave()
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	timer := time.NewTimer(p.limits.Commit)
	defer timer.Stop()
	select {
	case <-timer.C:
		return leave, nil
	case <-ctx.Done():
		leave()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func (p *Proxy) join(name string) (*queue, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[name]
	if q == nil {
		q = &queue{turn: make(chan struct{}, 1)}
		q.turn <- struct{}{}
		p.queues[name] = q
	}
	if q.waiting >= p.limits.Waiting {
		p.counts.Aborted++
		return nil, status.Error(codes.Aborted, "Too much contention on these documents. Please try again.")
	}
	q.waiting++
	p.counts.Commits[name]++
	return q, nil
}

func (p *Proxy) left(q *queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q.waiting--
}

// documents returns the names of the documents that a commit writes, sorted.
func documents(commit *firestorepb.CommitRequest) []string {
	var names []string
	for _, w := range commit.Writes {
		switch op := w.Operation.(type) {
		case *firestorepb.Write_Update:
			names = append(names, op.Update.Name)
		case *firestorepb.Write_Delete:
			names = append(names, op.Delete)
		case *firestorepb.Write_Transform:
			names = append(names, op.Transform.Document)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// outgoing passes on the headers of a call, but for those that the transport makes.
func outgoing(ctx context.Context) context.Context {
	in, _ := metadata.FromIncomingContext(ctx)
	out := metadata.MD{}
	for k, v := range in {
		if k != "content-type" && k != "user-agent" && k[0] != ':' {
			out[k] = v
		}
	}
	return metadata.NewOutgoingContext(ctx, out)
}

// raw is a codec that leaves messages as they are on the wire.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) ([]byte, error) {
	message, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("raw codec: cannot encode %T", v)
	}
	return *message, nil
}

func (raw) Unmarshal(data []byte, v any) error {
	message, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("raw codec: cannot decode into %T", v)
	}
	*message = data
	return nil
}
