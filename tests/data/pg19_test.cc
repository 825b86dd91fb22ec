// SPDX-License-Identifier: Apache-2.0
#include "coca/data/pg19.h"

#include "support/temp_dir.h"

namespace coca::data::pg19_test {
namespace {

using test::error_of;
using test::put_file;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Pg19, ListsWithAndWithoutHeader) {
  test::TempDir dir;
  // The published file has no header, and commas within titles have been removed. One title is quoted here anyway.
  put_file(dir / "a.csv",
           "1342,Pride and Prejudice by Jane Austen,1813,http://x/1342\n84,\"Frankenstein, or\",1818,u\n");
  put_file(dir / "b.csv", "book_id,book_title,publication_date\n1342,Pride and Prejudice,1813\n9,Undated,\n");
  const auto plain = read_book_list(dir / "a.csv"), headed = read_book_list(dir / "b.csv");
  ASSERT_EQ(plain.size(), 2u);
  EXPECT_EQ(plain.at("1342").title, "Pride and Prejudice by Jane Austen");
  EXPECT_EQ(plain.at("84").title, "Frankenstein, or");
  EXPECT_EQ(plain.at("84").year, 1818);
  ASSERT_EQ(headed.size(), 2u);
  EXPECT_EQ(headed.at("1342").year, 1813);
  EXPECT_EQ(headed.at("9").year, std::nullopt);
  put_file(dir / "c.csv", "1,One,1900,u\nTwo,1901\n");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read_book_list(dir / "c.csv"); }), HasSubstr("row 2 is \"Two\""));
}

TEST(Pg19, TheFolderMeansItsTestSplit) {
  test::TempDir dir;
  for (const char* file : {"pg/train/1.txt", "pg/test/2.txt", "pg/metadata.csv", "plain/test/3.txt", "bare/train/4.txt",
                           "bare/test/5.txt"})
    put_file(dir / file, "1,One,1900,u\n");
  const std::string pg = (dir / "pg").string(), plain = (dir / "plain").string();
  SplitInputs chosen = choose_split({pg, plain}, std::nullopt);
  EXPECT_THAT(chosen.inputs, ElementsAre(pg + "/test", plain));
  EXPECT_EQ(chosen.used, Split::kTest);
  EXPECT_EQ(choose_split({plain}, std::nullopt).used, std::nullopt);
  const std::string bare =
      (dir / "bare").string();  // without a list of books too, training text is not used as test text
  EXPECT_THAT(choose_split({bare}, std::nullopt).inputs, ElementsAre(bare + "/test"));
  EXPECT_THAT(choose_split({plain}, Split::kTest).inputs, ElementsAre(plain + "/test"));
  EXPECT_THAT(choose_split({pg}, Split::kTrain).inputs, ElementsAre(pg + "/train"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { choose_split({pg}, Split::kValidation); }), HasSubstr("pg/validation"));
  BookLists lists;
  EXPECT_EQ(lists.find(dir / "pg/test/1.txt")->title, "One");
  EXPECT_FALSE(lists.find(dir / "pg/test/2.txt"));
  EXPECT_FALSE(lists.find(dir / "plain/test/3.txt"));
}

}  // namespace
}  // namespace coca::data::pg19_test
