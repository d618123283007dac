package doctor

import "time"

// Aged makes transactions older than they are.
func Aged(by time.Duration, transactions int64) func(*Options) {
	return func(o *Options) { o.aged.by, o.aged.transactions = by, transactions }
}

var (
	JudgeVersion = judgeVersion
	JudgeClock   = judgeClock
	JudgeDead    = judgeDead
	Age          = age
	Count        = count
)
