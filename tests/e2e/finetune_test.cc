// coca finetune, merge and --adapter, run as a user runs them.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/json_file.h"
#include "e2e/cli_fixture.h"

namespace coca::finetune_test {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::HasSubstr;

class Finetune : public test::CliFixture {
 protected:
  void SetUp() override {
    std::string examples;
    for (int i = 0; i < 40; ++i) {
      const std::string word = std::string(1, static_cast<char>('a' + i % 7)) + static_cast<char>('a' + i % 5);
      examples += "{\"prompt\": \"say " + word + ": \", \"answer\": \"" + word + word + "\"}\n";
    }
    put("text.txt", cats_and_dogs(100));
    put("examples.jsonl", examples);
    const Outcome trained =
        coca({"train", "--text", at("text.txt"), "--out", at("base"), "--layers", "1", "--width", "32", "--heads", "2",
              "--length", "48", "--batch", "2", "--steps", "4", "--attention", "coca-slack"});
    ASSERT_EQ(trained.code, 0) << trained.err;
  }
  Args tune(const std::string& out, const Args& more = {}) {
    return with({"finetune", "--model", at("base/model"), "--data", at("examples.jsonl"), "--out", at(out), "--batch",
                 "2", "--steps", "6"},
                more);
  }
  std::string generate(const Args& more) {
    const Outcome o =
        coca(with({"generate", "--prompt", "say ab: ", "--temperature", "0", "--max-new-tokens", "8"}, more));
    EXPECT_EQ(o.code, 0) << o.err;
    return o.out;
  }
};

TEST_F(Finetune, ExamplesStagesAndResume) {
  std::ofstream(at("run.json"))
      << R"({"stages": [{"train": ["*.t.*"], "steps": 2}, {"train": ["*query_key_value*"], "steps": 2, "learning_rate": 0.001}, {"steps": 2}]})";
  const Outcome whole = coca(tune(
      "whole", {"--config", at("run.json"), "--validation-data", at("examples.jsonl"), "--learning-rate", "0.01"}));
  ASSERT_EQ(whole.code, 0) << whole.err;
  EXPECT_THAT(whole.out, HasSubstr("examples: 40 in"));
  EXPECT_THAT(whole.out, HasSubstr("without an answer in reach: 0 left out"));
  EXPECT_THAT(whole.out, HasSubstr("in the first of 3 stages"));
  EXPECT_THAT(whole.err, HasSubstr("warmup_steps is 10, but the stage has only 2 steps"));
  EXPECT_THAT(whole.err, HasSubstr("; the same holds for 2 other stages\n")) << "said once for all";
  EXPECT_EQ(whole.err.find("warmup_steps"), whole.err.rfind("warmup_steps"));
  EXPECT_THAT(whole.err, testing::Not(HasSubstr("longer than the window")));
  EXPECT_EQ(io::read_json(at("whole/finetune_config.json"))["stages"].size(), 3u);
  const Outcome again = coca(tune("whole", {"--config", at("run.json"), "--learning-rate", "0.01"}));
  EXPECT_EQ(again.code, 2);
  EXPECT_THAT(again.err, HasSubstr("already holds a training run"));
  const Outcome resumed = coca(tune("whole", {"--config", at("run.json"), "--validation-data", at("examples.jsonl"),
                                              "--learning-rate", "0.01", "--resume"}));
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, HasSubstr("whole is already complete: all 6 steps are done"));
  EXPECT_FALSE(generate({"--model", at("whole/model")}).empty());
  const Outcome paper = coca(tune("paper", {"--stages", "coca-paper", "--steps", "1"}));
  EXPECT_EQ(paper.code, 0) << paper.err;
  EXPECT_THAT(paper.out, HasSubstr("3 steps"));
}

TEST_F(Finetune, ExamplesLongerThanTheWindowAreCounted) {
  const Args more = {"--length", "8", "--steps", "1", "--long-documents"};
  const Outcome split = coca(tune("split", with(more, {"split"})));
  EXPECT_EQ(split.code, 0) << split.err;
  EXPECT_THAT(
      split.err,
      HasSubstr("warning: 40 of 40 examples are longer than the window of 8 tokens: 40 are split, and only the first"));
  EXPECT_THAT(split.err, HasSubstr("a greater --length takes them whole"));
  put("examples.jsonl", std::string("{\"prompt\": \"a\", \"answer\": \"b\"}\n{\"prompt\": \"a\", \"answer\": \"") +
                            std::string(50, 'b') + "\"}\n");
  const Outcome cut = coca(tune("cut", with(more, {"truncate"})));
  EXPECT_THAT(
      cut.err,
      HasSubstr(
          "warning: 1 of 2 examples is longer than the window of 8 tokens: 1 is cut off at the end of the window; "));
}

TEST_F(Finetune, ExamplesAndTextsInTrainingAndValidationAreNamed) {
  put("validation.jsonl",
      "{\"prompt\": \"say aa: \", \"answer\": \"zz\"}\n{\"prompt\": \"say bb:  \", \"answer\": \"bbbb\"}\n");
  const Outcome examples = coca(tune("out", {"--validation-data", at("validation.jsonl")}));
  ASSERT_EQ(examples.code, 0) << examples.err;
  EXPECT_THAT(examples.err,
              HasSubstr(fmt::format("warning: {}:2 (training) and {}:2 (validation) are the same document",
                                    at("examples.jsonl"), at("validation.jsonl"))));
  EXPECT_THAT(examples.err, testing::Not(HasSubstr("validation.jsonl:1")));
  EXPECT_THAT(examples.out, testing::ContainsRegex("validation documents also trained on +1\n"));
  put("copy/b.txt", cats_and_dogs(100) + "\n");
  const Outcome text = coca({"finetune", "--model", at("base/model"), "--text", at("text.txt"), "--validation-text",
                             at("copy"), "--out", at("text"), "--steps", "1", "--batch", "1"});
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.err, HasSubstr(at("text.txt") + " (training) and " + at("copy/b.txt") +
                                  " (validation) are the same document"));
}

TEST_F(Finetune, AnAdapterIsTrainedUsedAndMerged) {
  const Outcome trained = coca(tune("lora", {"--lora-rank", "4", "--lora-alpha", "16", "--lora-dropout", "0.1",
                                             "--learning-rate", "0.1", "--steps", "20"}));
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_THAT(trained.out, HasSubstr("adapter of"));
  EXPECT_THAT(trained.out, HasSubstr("adapter: " + at("lora/adapter")));
  const Outcome merged =
      coca({"merge", "--model", at("base/model"), "--adapter", at("lora/adapter"), "--out", at("merged")});
  ASSERT_EQ(merged.code, 0) << merged.err;
  EXPECT_EQ(generate({"--model", at("base/model"), "--adapter", at("lora/adapter")}),
            generate({"--model", at("merged")}));
  EXPECT_NE(generate({"--model", at("base/model")}), generate({"--model", at("merged")}));
  const auto refused = [&](const std::string& out, const std::string& text) {
    const Outcome o = coca({"merge", "--model", at("base/model"), "--adapter", at("lora/adapter"), "--out", at(out)});
    EXPECT_NE(o.code, 0);
    EXPECT_THAT(o.err, HasSubstr(text));
  };
  refused("merged", "exists already");
  refused("base/model", "would replace an input, --model " + at("base/model"));
  refused("base/model/merged", "--out " + at("base/model/merged") + " lies in --model " + at("base/model") +
                                   "; choose a folder outside of it");
  refused("lora/adapter/a/b", "lies in --adapter");
  EXPECT_FALSE(std::filesystem::exists(at("base/model/merged")) || std::filesystem::exists(at("lora/adapter/a")));
  for (const Args& option : {Args{"--lora-alpha", "16"},
                             {"--lora-dropout", "0.1"},
                             {"--lora-targets", "*"},
                             {"--lora-scaling", "root-of-rank"}}) {
    const Outcome more = coca(tune("more", with(option, {"--adapter", at("lora/adapter")})));
    EXPECT_EQ(more.code, 2);
    EXPECT_THAT(more.err, HasSubstr(option[0] + ": the adapter that is trained further, " + at("lora/adapter") +
                                    ", has its own; leave the option out"));
  }
}

TEST_F(Finetune, ResumingNothingIsSaid) {
  const Outcome o = coca(tune("new", {"--steps", "1", "--resume"}));
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("--resume: no run in " + at("new") + ": starts from the beginning"));
  EXPECT_THAT(coca({"finetune", "--out", at("new"), "--resume"}).err, testing::Not(HasSubstr("no run in")));
}

TEST_F(Finetune, AFolderThatIsNoModelIsExplained) {
  ASSERT_EQ(coca(tune("lora", {"--lora-rank", "2", "--steps", "1"})).code, 0);
  const auto said = [&](const std::string& folder, const std::string& text) {
    const Outcome o = coca({"generate", "--model", at(folder), "--prompt", "x"});
    EXPECT_EQ(o.code, 1);
    EXPECT_THAT(o.err, HasSubstr(text));
  };
  said("base", "not a model folder; the model is in " + at("base/model"));
  said("lora/adapter", "it holds an adapter: give it as --adapter, and the model it was trained on as --model");
  said("lora", "give " + at("lora/adapter") + " as --adapter");
  const auto no_adapter = [&](const std::string& folder, const std::string& text) {
    for (const Args& command : {Args{"generate", "--prompt", "x"},
                                {"merge", "--out", at("m")},
                                {"finetune", "--data", at("examples.jsonl")}}) {
      const Outcome o = coca(with(command, {"--model", at("base/model"), "--adapter", at(folder)}));
      EXPECT_EQ(o.code, 1) << command[0];
      EXPECT_THAT(o.err, HasSubstr(text)) << command[0];
    }
  };
  no_adapter("lora", "not an adapter folder; the adapter is in " + at("lora/adapter"));
  no_adapter("lora/adaptr", "does not exist; the adapter is in " + at("lora/adapter"));
  no_adapter("base", "; " + at("base/model") + " is a model: give it as --model");
  no_adapter("base/model", "; " + at("base/model") + " is a model: give it as --model");
  fs::remove_all(at("lora/adapter"));
  no_adapter("lora", "is not finished: its newest checkpoint is " + at("lora/checkpoints/step-"));
  no_adapter("lora/adapter", "is not finished: its newest checkpoint is " + at("lora/checkpoints/step-"));
  fs::remove_all(at("base/model"));
  fs::create_directories(at("base/checkpoints/step-x"));
  const std::string newest = "is not finished: its newest checkpoint is " + at("base/checkpoints/step-");
  said("base", newest);
  said("base/model", newest);
}

TEST_F(Finetune, AnAdapterKnowsItsModel) {
  ASSERT_EQ(coca(tune("lora", {"--lora-rank", "2", "--steps", "1"})).code, 0);
  ASSERT_EQ(coca(tune("other", {"--steps", "1"})).code, 0);
  ASSERT_EQ(coca({"convert", at("base/model"), at("strict"), "--attention", "coca-strict"}).code, 0);
  const auto uses = [&](const std::string& model) {
    return std::vector<Args>{
        {"merge", "--model", model, "--adapter", at("lora/adapter"), "--out", at("merged")},
        {"generate", "--model", model, "--adapter", at("lora/adapter"), "--prompt", "x", "--max-new-tokens", "1"},
        {"eval", "ppl", "--model", model, "--adapter", at("lora/adapter"), "--text", at("text.txt"), "--lengths", "16",
         "--max-tokens", "32"},
        with(tune("more", {"--model", model, "--adapter", at("lora/adapter"), "--steps", "1"}), {})};
  };
  for (const auto& [model, code, text] :
       {std::tuple{"base/model", 0, ""},
        {"other/model", 0,
         "warning: "
         "LORA: the adapter was trained on a model with fingerprint "},
        {"strict", 1,
         "LORA: the adapter was trained on a model with attention \"coca-slack\" (base_model_name_or_path "}})
    for (const Args& args : uses(at(model))) {
      SCOPED_TRACE(args[0] + " " + model);
      const Outcome o = coca(args);
      EXPECT_EQ(o.code, code) << o.err;
      std::string wanted = text;
      if (const size_t place = wanted.find("LORA"); place != std::string::npos)
        wanted.replace(place, 4, at("lora/adapter/adapter_config.json"));
      EXPECT_THAT(o.err, HasSubstr(wanted));
      EXPECT_EQ(wanted.empty(), o.err.find("was trained on a model") == std::string::npos);
      for (const char* made : {"merged", "more"}) fs::remove_all(at(made));
    }
}

// The prompt's ids are those of training, so that the model can be asked what it has learned.
TEST_F(Finetune, AModelIsChattedWithByTheTemplateItLearned) {
  std::string talks;
  for (int i = 0; i < 20; ++i)
    talks += R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]})"
             "\n";
  put("talks.jsonl", talks);
  const auto ask = [&](const Args& more) {
    const Outcome o = coca(with(
        {"generate", "--chat", "--prompt", "hi", "--temperature", "0", "--max-new-tokens", "30", "--json", "-"}, more));
    EXPECT_EQ(o.code, 0) << o.err;
    return o.code == 0 ? nlohmann::json::parse(o.out) : nlohmann::json::object();
  };
  const Args chats = {"--data", at("talks.jsonl"), "--steps", "60", "--learning-rate", "0.02", "--length", "64"};
  ASSERT_EQ(coca(tune("plain", chats)).code, 0);
  const auto plain = ask({"--model", at("plain/model")});
  EXPECT_EQ(plain["text"], " ok");
  EXPECT_EQ(plain["finish"], "end of text");
  EXPECT_EQ(ask({"--model", at("plain/model"), "--chat-template", "plain"})["prompt_ids"], plain["prompt_ids"]);
  ASSERT_EQ(coca(tune("chatml", with(chats, {"--chat-template", "chatml"}))).code, 0);
  const auto chatml = ask({"--model", at("chatml/model")});
  EXPECT_EQ(chatml["text"], "ok");
  EXPECT_EQ(chatml["finish"], "stop string") << "<|im_end|> is text for this tokenizer";
  const auto checkpoint = ask({"--model", at("chatml/checkpoints/step-00000060")});
  for (const char* key : {"prompt_ids", "ids", "finish"}) EXPECT_EQ(checkpoint[key], chatml[key]) << key;
  // An adapter brings its template along, to what is trained on top of it and merged too.
  const Args lora = with(chats, {"--lora-rank", "4", "--steps", "2"});
  ASSERT_EQ(coca(tune("lora", with(lora, {"--chat-template", "chatml"}))).code, 0);
  ASSERT_EQ(coca(tune("more",
                      {"--data", at("talks.jsonl"), "--length", "64", "--steps", "1", "--adapter", at("lora/adapter")}))
                .code,
            0);
  ASSERT_EQ(coca({"merge", "--model", at("base/model"), "--adapter", at("more/adapter"), "--out", at("merged")}).code,
            0);
  const auto ids = chatml["prompt_ids"];
  for (const char* adapter : {"lora/adapter", "lora/checkpoints/step-00000002"})
    EXPECT_EQ(ask({"--model", at("base/model"), "--adapter", at(adapter)})["prompt_ids"], ids);
  EXPECT_EQ(ask({"--model", at("base/model"), "--adapter", at("more/adapter")})["prompt_ids"], ids);
  EXPECT_EQ(ask({"--model", at("merged")})["prompt_ids"], ids);
  // Trained further, by default on the template it knows; on prompts and answers, with none.
  ASSERT_EQ(coca(tune("again",
                      {"--model", at("chatml/model"), "--data", at("talks.jsonl"), "--steps", "1", "--length", "64"}))
                .code,
            0);
  EXPECT_EQ(ask({"--model", at("again/model")})["prompt_ids"], ids);
  ASSERT_EQ(coca(tune("pairs")).code, 0);
  const Outcome none = coca({"generate", "--model", at("pairs/model"), "--chat", "--prompt", "x"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("has no chat template; name one with --chat-template: a file, or plain, chatml, "));
}

// What --chat-var said in training holds for the model, until it is overridden.
TEST_F(Finetune, VariablesOfTheTemplateAreSaved) {
  put("talks.jsonl", R"({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ok"}]})");
  const std::string chat = put("loud.jinja",
                               "{% for m in messages %}{% if loud %}!{% endif %}{{ m.role }}:{{ m.content }}\n"
                               "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}");
  const auto prompt = [&](const Args& more) {
    const Outcome o = coca(with({"generate", "--chat", "--prompt", "hi", "--max-new-tokens", "1", "--echo"}, more));
    EXPECT_EQ(o.code, 0) << o.err;
    return o.out.substr(0, o.out.find('\n'));
  };
  const Args talks = {"--data", at("talks.jsonl"), "--steps", "1", "--length", "48"};
  const Args loud = with(talks, {"--chat-template", chat, "--chat-var", "loud=true"});
  ASSERT_EQ(coca(tune("loud", loud)).code, 0);
  for (const char* model : {"loud/model", "loud/checkpoints/step-00000001"}) {
    EXPECT_EQ(prompt({"--model", at(model)}), "!user:hi");
    EXPECT_EQ(prompt({"--model", at(model), "--chat-var", "loud=false"}), "user:hi");
    EXPECT_EQ(prompt({"--model", at(model), "--chat-template", chat}), "user:hi") << "another template's variables";
  }
  ASSERT_EQ(coca(tune("more", with(talks, {"--model", at("loud/model")}))).code, 0);
  EXPECT_EQ(prompt({"--model", at("more/model")}), "!user:hi");
  ASSERT_EQ(coca(tune("quiet", with(talks, {"--model", at("loud/model"), "--chat-template", chat}))).code, 0);
  EXPECT_EQ(prompt({"--model", at("quiet/model")}), "user:hi");
  ASSERT_EQ(coca(tune("lora", with(loud, {"--lora-rank", "2"}))).code, 0);
  EXPECT_EQ(prompt({"--model", at("base/model"), "--adapter", at("lora/adapter")}), "!user:hi");
  ASSERT_EQ(coca({"merge", "--model", at("base/model"), "--adapter", at("lora/adapter"), "--out", at("merged")}).code,
            0);
  EXPECT_EQ(prompt({"--model", at("merged")}), "!user:hi");
  put("merged/chat_variables.json", "[1]");
  const Outcome damaged = coca({"generate", "--model", at("merged"), "--chat", "--prompt", "hi"});
  EXPECT_EQ(damaged.code, 1);
  EXPECT_THAT(damaged.err, HasSubstr("chat_variables.json: found array; expected an object of names and values"));
}

TEST_F(Finetune, WrongUseIsRefusedInOneLine) {
  const auto refused = [&](const Args& args, int code, const std::string& text) {
    const Outcome o = coca(args);
    EXPECT_EQ(o.code, code) << o.err;
    EXPECT_THAT(o.err.substr(0, o.err.find('\n')), HasSubstr(text));
    EXPECT_EQ(o.out, "");
  };
  refused({"finetune"}, 2, "--model: none given");
  refused({"finetune", "--model", at("base/model")}, 2, "--data: none given; expected examples");
  refused({"finetune", "--model", at("nothing"), "--data", at("examples.jsonl")}, 1, "nothing does not exist");
  refused(tune("o", {"--train", "*t_proj*"}), 2, "\"*t_proj*\" matches none");
  refused(tune("o", {"--stages", "paper"}), 2, "expected coca-paper");
  refused(tune("o", {"--lora-rank", "2", "--freeze", "*"}), 2, "with an adapter");
  for (const Args& option : {Args{"--lora-alpha", "5"},
                             {"--lora-alpha", "16"},
                             {"--lora-dropout", "0.1"},
                             {"--lora-targets", "*"},
                             {"--lora-scaling", "root-of-rank"},
                             {"--config", put("lora.json", R"({"lora_alpha": 5})")}})
    refused(tune("o", option), 2,
            (option[0] == "--config" ? "--lora-alpha" : option[0]) + ": no LoRA adapter is trained; add --lora-rank");
  std::ofstream(at("bad.jsonl")) << "{\"prompt\": \"p\"}\n";
  refused({"finetune", "--model", at("base/model"), "--data", at("bad.jsonl")}, 1,
          "bad.jsonl:1: field \"answer\" is missing");
  refused({"generate", "--model", at("base/model"), "--adapter", at("base/model"), "--prompt", "x"}, 1,
          "not an adapter folder");
}

}  // namespace
}  // namespace coca::finetune_test
