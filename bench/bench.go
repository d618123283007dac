package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// options are the command line.
type options struct {
	scenarios, peers         []string
	rounds                   int
	jobs                     float64 // scales the numbers of jobs
	duration                 time.Duration
	limit                    time.Duration
	quick, build             bool
	rawBatch, rawConnections int
	roundTrip                time.Duration // between the sides and the server
	processes, slots         int           // 0: as the scenario says
	json, plot, markdown     string
}

// A bench is one run of this program.
type bench struct {
	options  options
	server   *server
	distance *distance // nil: none
	scratch  string
	peers    map[string]*peer
	rates    map[string][]float64 // jobs a second of the plain drain, by peer
	results  []result
	database string                           // that runs are made in
	now      func(format string, args ...any) // tells of progress
}

// figures are what one run of one side gave, by the metric's name.
type figures map[string]float64

// A result is a run, or a failure to have one.
type result struct {
	Scenario string  `json:"scenario"`
	Peer     string  `json:"peer"`
	Round    int     `json:"round"`
	Figures  figures `json:"figures,omitempty"`
	Error    string  `json:"error,omitempty"`
}

func (b *bench) count(jobs int) int { return max(1, int(float64(jobs)*b.options.jobs)) }

// processes is how many of them a scenario of that many has.
func (b *bench) processes(usually int) int { return cmp.Or(b.options.processes, usually) }

func (b *bench) slots(usually int) int { return cmp.Or(b.options.slots, usually) }

// runTimeout ends a run that hangs.
func (b *bench) runTimeout() time.Duration {
	return 2*time.Minute + 2*b.options.duration + 4*b.options.limit
}

const templateName = "bench_template"

// run runs a scenario: for each family of tables a template, and then round by
// round all sides, each round beginning with another one.
func (b *bench) run(ctx context.Context, s scenario, names []string) error {
	templates := make(map[string]string)
	for _, name := range names {
		p := b.peers[name]
		if templates[p.queue.name()] != "" {
			continue
		}
		template := fmt.Sprintf("%s_%d", templateName, len(templates))
		f := s.filling(b)
		if err := b.server.template(ctx, template, p.queue, func(ctx context.Context, pool *pgxpool.Pool) error {
			return p.queue.fill(ctx, pool, f)
		}); err != nil {
			return err
		}
		templates[p.queue.name()] = template
	}
	for round := range b.options.rounds {
		for i := range names {
			name := names[(i+round)%len(names)]
			r := result{Scenario: s.name, Peer: name, Round: round + 1}
			var err error
			r.Figures, err = b.once(ctx, s, b.peers[name], templates[b.peers[name].queue.name()])
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				r.Error, r.Figures = err.Error(), nil
				b.now("%-14s %-14s round %d: FAILED: %v", s.name, name, r.Round, err)
			} else {
				if s.name == "drain" {
					b.rates[name] = append(b.rates[name], r.Figures[rate.name])
				}
				b.now("%-14s %-14s round %d: %s", s.name, name, r.Round, s.line(r.Figures))
			}
			b.results = append(b.results, r)
		}
	}
	for _, template := range templates {
		if err := b.server.drop(ctx, template); err != nil {
			return err
		}
	}
	return b.server.drop(ctx, b.database)
}

// once is one run of one side, on a database of its own.
func (b *bench) once(ctx context.Context, s scenario, p *peer, template string) (figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.runTimeout(), fmt.Errorf("the run took longer than %s", b.runTimeout()))
	defer cancel()
	r, err := b.begin(ctx, s, p, template)
	if err != nil {
		return nil, err
	}
	defer r.cleanUp()
	if err := s.run(ctx, r); err != nil {
		return nil, err
	}
	return r.figures, nil
}

func (b *bench) begin(ctx context.Context, s scenario, p *peer, template string) (*run, error) {
	url, err := b.server.database(ctx, b.database, template)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 4
	sideURL := url
	if b.distance != nil {
		sideURL = b.distance.database(b.database)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &run{
		bench: b, peer: p, url: url, sideURL: sideURL, pool: pool, figures: make(figures), filling: s.filling(b), cpu: make(map[*process]float64),
	}, nil
}

// A run is one side on one database.
type run struct {
	bench     *bench
	peer      *peer
	url       string
	sideURL   string        // the same for the side, which may be further away
	pool      *pgxpool.Pool // for looking and feeding
	filling   filling
	figures   figures
	processes []*process
	cpu       map[*process]float64 // of workers that ran before measure
	serverCPU float64
	sampler   *sampler
	hasProc   bool
}

func (r *run) order(role string) order {
	return order{
		Peer: r.peer.name, URL: r.sideURL, Role: role, Concurrency: r.bench.slots(slots), PerCall: 1,
		RawBatch: r.bench.options.rawBatch, RawConnections: r.bench.options.rawConnections,
	}
}

// start starts a side's process and waits until it says that it is ready.
func (r *run) start(ctx context.Context, o order, heard func(reply)) (*process, error) {
	p, err := r.bench.spawn(ctx, r.peer, o, heard)
	if err != nil {
		return nil, err
	}
	r.processes = append(r.processes, p)
	return p, p.wait(ctx)
}

func (r *run) cleanUp() {
	for _, p := range r.processes {
		p.kill()
	}
	if r.sampler != nil {
		r.sampler.end()
	}
	r.pool.Close()
}

// measure begins to count what the workers and the server use; of workers that
// start later it is from their beginning.
func (r *run) measure() {
	for _, p := range r.processes {
		if s, err := readStat(p.pid()); err == nil {
			r.cpu[p] = s.own
		}
	}
	var err error
	r.serverCPU, err = serverCPU(r.bench.server.pid)
	if r.hasProc = err == nil && r.bench.server.pid != 0; r.hasProc {
		r.sampler = sampleServer(r.bench.server.pid)
	}
}

// measured ends it; the workers must still be there.
func (r *run) measured(workers ...*process) error {
	if !r.hasProc {
		return nil
	}
	r.figures[serverMB.name] = r.sampler.end()
	now, err := serverCPU(r.bench.server.pid)
	if err != nil {
		return err
	}
	r.figures[serverSeconds.name] = now - r.serverCPU
	for _, w := range workers {
		s, err := readStat(w.pid())
		if err != nil {
			return fmt.Errorf("reading what a side has used: %w", err)
		}
		mb, err := peakMemory(w.pid())
		if err != nil {
			return fmt.Errorf("reading what a side has used: %w", err)
		}
		r.figures[workerSeconds.name] += s.own - r.cpu[w]
		r.figures[workerMB.name] = max(r.figures[workerMB.name], mb)
	}
	return nil
}

func tell(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
