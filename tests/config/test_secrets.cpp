#include <fstream>
#include <stdlib.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "config/secrets.hpp"
#include "tests/temp_dir.hpp"

namespace penstock::config {
namespace {

void write(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }

}  // namespace

TEST_CASE("a reference is a reference as a whole", "[config][secrets]") {
  for (const char* text :
       {"${env:A}", "${env:_a1}", "${file:/run/x y}", "${secret:db.password-1}", "${file:${dir}/token}"}) {
    INFO(text);
    CHECK(is_secret_reference(text));
    CHECK_FALSE(check_references(text));
  }
  for (const char* text :
       {"", "x", "${env:A}x", "x${env:A}", "${env:A}${env:B}", "${env:}", "${env:A", "${ENV:A}", "$env:A",
        "${dir}", "${env:A B}", "${secret:a/b}", "${secret:..}", "${file:x}", "${vault:a}"}) {
    INFO(text);
    CHECK_FALSE(is_secret_reference(text));
  }
}

TEST_CASE("what a shell would write is none of our business", "[config][secrets]") {
  // Nor are fill-ins; they have their own checks.
  for (const char* text : {"${params.x}", "${item}", "${run.id}${tasks['a'].output}", "echo ${HOME}", "${HOME:-/root}", "${x:-y}", "${name:0:3}", "${x:?unset}",
                           "$(env:A)", "${dir}/a", "${", "${}", "${:a}", "100$"}) {
    INFO(text);
    CHECK_FALSE(check_references(text));
    CHECK(resolve_secrets(text, {}).value() == text);
  }
}

TEST_CASE("bad references are named", "[config][secrets]") {
  CHECK_THAT(*check_references("a ${evn:X}"), Catch::Matchers::Contains("did you mean 'env'?"));
  CHECK_THAT(*check_references("a ${vault:x}"), Catch::Matchers::Contains("known: env, file, secret"));
  CHECK_THAT(*check_references("${env:A} ${env:1}"), Catch::Matchers::Contains("${env:1}"));
  CHECK_THAT(*check_references("${params:x}"), Catch::Matchers::Contains("with a dot: ${params.NAME}"));
  CHECK_THAT(*check_references("${file:/a/${params.x}}"), Catch::Matchers::Contains("holds another"));
  CHECK_THAT(*check_references("${secret:${item}}"), Catch::Matchers::Contains("holds another"));
  CHECK_FALSE(check_references("${file:/a/${dir}/b}"));
  CHECK_THAT(*check_references("${env:A"), Catch::Matchers::Contains("closing brace"));
  CHECK(check_references("${env:" + std::string(100'000, '$')));
}

TEST_CASE("values come from environment, files and the secrets folders", "[config][secrets]") {
  const testing::temp_dir dir;
  ::setenv("PENSTOCK_TEST_SECRET", "s3", 1);
  ::unsetenv("PENSTOCK_TEST_NOTHING");
  write(dir / "file", "two\n\n");
  std::filesystem::create_directories(dir / "secrets");
  std::filesystem::create_directories(dir / "credentials");
  write(dir / "secrets/a", "from secrets\n");
  write(dir / "credentials/a", "from credentials");
  write(dir / "credentials/b", "${env:PENSTOCK_TEST_SECRET}");
  write(dir / "secrets/empty", "");
  write(dir / "secrets/of_windows", "a\r\nb\r\n");
  write(dir / "secrets/ends_in_cr", "a\r");
  const secret_sources sources{dir / "secrets", dir / "credentials"};

  CHECK(resolve_secrets("x ${env:PENSTOCK_TEST_SECRET}-${env:PENSTOCK_TEST_SECRET} y", sources).value() ==
        "x s3-s3 y");
  CHECK(resolve_secrets("${file:" + (dir / "file").string() + "}", sources).value() == "two\n");
  CHECK(resolve_secrets("${secret:a}", sources).value() == "from secrets");
  CHECK(resolve_secrets("${secret:b}", sources).value() == "${env:PENSTOCK_TEST_SECRET}");
  CHECK(resolve_secrets("${secret:empty}", sources).value().empty());
  CHECK(resolve_secrets("${secret:of_windows}", sources).value() == "a\r\nb");
  CHECK(resolve_secrets("${secret:ends_in_cr}", sources).value() == "a\r");

  const auto detail = [&](const std::string& text) {
    const auto out = resolve_secrets(text, sources);
    REQUIRE_FALSE(out.has_value());
    return out.error().detail;
  };
  CHECK(detail("${env:PENSTOCK_TEST_SECRET} ${env:PENSTOCK_TEST_NOTHING}") ==
        "${env:PENSTOCK_TEST_NOTHING}: the environment variable is not set");
  CHECK(detail("${secret:c}") == "${secret:c}: there is no secret of that name");
  CHECK_THAT(detail("${file:/nowhere/at/all}"), Catch::Matchers::Contains("no such file"));
  CHECK_THAT(detail("${file:" + dir.path().string() + "}"), Catch::Matchers::Contains("no such file"));
  CHECK_THAT(detail("${secret:../file}"), Catch::Matchers::Contains("names no secret"));
}

TEST_CASE("a secret that is a pipe or too large is refused, not read for ever", "[config][secrets]") {
  const testing::temp_dir dir;
  write(dir / "large", std::string(64 * 1024 + 1, 'x'));
  REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK_FALSE(resolve_secrets("${file:" + (dir / "large").string() + "}", {}).has_value());
  CHECK_FALSE(resolve_secrets("${file:" + (dir / "pipe").string() + "}", {}).has_value());
  CHECK_FALSE(resolve_secrets("${file:/dev/zero}", {}).has_value());
}

}  // namespace penstock::config
