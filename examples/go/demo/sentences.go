package main

import (
	"fmt"

	"github.com/streaminfer/streaminfer/examples/go/minilm"
)

var sentences = []string{
	"Refunds are paid back to the original card within five working days.",
	"You can change your password under Settings, Security.",
	"The parcel left our warehouse this morning and should reach you on Friday.",
	"Our support team answers the phone from eight to six on weekdays.",
	"The annual plan costs less than twelve single months.",
	"To close your account, write to us from the address you registered with.",
	"The printer needs a new drum after about twelve thousand pages.",
	"Hold the power button for ten seconds to restart a frozen tablet.",
	"Keep the battery between twenty and eighty percent to make it last.",
	"The warranty does not cover damage by water.",
	"Simmer the tomatoes with garlic and basil for half an hour.",
	"Let the bread dough rise overnight in the refrigerator.",
	"A pinch of salt makes chocolate taste sweeter.",
	"Rinse the rice until the water runs clear.",
	"Peanuts are among the most common causes of severe allergies.",
	"Drinking enough water helps against headaches.",
	"Adults should sleep between seven and nine hours a night.",
	"Regular walks lower the blood pressure.",
	"Wash a small cut with clean water and cover it with a plaster.",
	"The vaccine protects for about ten years.",
	"The Moon moves away from the Earth by almost four centimetres a year.",
	"Light from the Sun takes eight minutes to reach us.",
	"A day on Venus is longer than its year.",
	"Whales are mammals and breathe air.",
	"Octopuses have three hearts and blue blood.",
	"Bees tell each other the way to flowers by dancing.",
	"The oldest living tree is almost five thousand years old.",
	"Rust's borrow checker rejects programs that use memory after freeing it.",
	"A goroutine starts with a stack of a few kilobytes.",
	"An index makes a database query fast and an insert slower.",
	"Encrypt the backup before you copy it to another machine.",
	"The service restarts by itself when its health check fails.",
	"The night train to Vienna leaves at ten from platform four.",
	"Buses do not run to the village on Sundays.",
	"The museum is free on the first Sunday of the month.",
	"Bring a rain jacket: the weather in the mountains changes quickly.",
	"The orchestra tunes its instruments to the oboe.",
	"She scored the winning goal in the last minute.",
	"The novel tells of a family over four generations.",
	"Inflation fell to two percent last year.",
}

var queries = []string{
	"How do I get my money back?",
	"My device does not react any more",
	"which animals live in the sea",
	"What should I do when I am hurt?",
	"memory safety in programming languages",
}

// searchSentences finds, for each query, the sentences whose meaning is closest, though they share hardly a word.
func (s *stage) searchSentences() error {
	fmt.Printf("\nWHICH SENTENCE IS MEANT? all-MiniLM-L6-v2 compares meanings; %d sentences, best two of each.\n", len(sentences))
	embedder, err := minilm.NewEmbedder(s.meanings, s.tokenizer)
	if err != nil {
		return err
	}
	defer embedder.Close()
	var index minilm.Index
	var vector []float32
	for _, sentence := range sentences {
		if vector, err = embedder.Embed(s.ctx, vector[:0], sentence); err != nil {
			return err
		}
		index.Add(sentence, vector)
	}
	for _, query := range queries {
		if vector, err = embedder.Embed(s.ctx, vector[:0], query); err != nil {
			return err
		}
		fmt.Printf("\n  %s\n", query)
		for _, hit := range index.Search(vector, 2) {
			fmt.Printf("    %.2f  %s\n", hit.Score, hit.Sentence)
		}
	}
	return nil
}
