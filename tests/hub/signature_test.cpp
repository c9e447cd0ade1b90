#include "hub/signature.h"

#include <gtest/gtest.h>

#include <set>

#include "base/base64.h"
#include "base/error.h"
#include "base/sha256.h"
#include "hub/aws_signature.h"

namespace calotype::hub {
namespace {

// The vector that Replicate's own clients test with (replicate-javascript and replicate-python, "webhooks").
TEST(Signature, IsWhatReplicatesClientsExpect) {
  EXPECT_EQ(webhook_signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
                              R"({"test": 2432232314})"),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

TEST(Signature, RefusesWhatIsNoSecret) {
  EXPECT_THROW(webhook_signature("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "id", 1, ""), base::Error);
  EXPECT_THROW(webhook_signature("whsec_", "id", 1, ""), base::Error);
  EXPECT_THROW(webhook_signature("whsec_not base64!", "id", 1, ""), base::Error);
}

// RFC 4231, test cases 1, 2 and 6.
TEST(Hmac, MatchesRfc4231) {
  EXPECT_EQ(hex(hmac_sha256(std::string(20, '\x0b'), "Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hex(hmac_sha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hex(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  // Python: hmac.new(b"", b"", "sha256").hexdigest()
  EXPECT_EQ(hex(hmac_sha256("", "")), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

// The examples in S3's documentation whose signed headers are ours ("Signature Calculations for the Authorization
// Header").
TEST(AwsSignature, MatchesTheDocumentation) {
  const AwsKey key{.access_key = "AKIAIOSFODNN7EXAMPLE", .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"};
  const auto authorization = [&](const std::string& query) {
    const Headers headers = aws_signature(key,
                                          {.method = "GET",
                                           .url = Url::parse("https://examplebucket.s3.amazonaws.com/" + query),
                                           .payload_sha256 = base::sha256_hex(""),
                                           .time = 1369353600},
                                          {});
    return headers.back().second;
  };
  const std::string begin =
      "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
      "SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature=";
  EXPECT_EQ(authorization("?lifecycle"), begin + "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(authorization("?prefix=J&max-keys=2"),
            begin + "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(ConstantTimeEqual, ComparesWholeTexts) {
  EXPECT_TRUE(constant_time_equal("secret", "secret"));
  EXPECT_TRUE(constant_time_equal("", ""));
  EXPECT_FALSE(constant_time_equal("secret", "secreT"));
  EXPECT_FALSE(constant_time_equal("secret", "secre"));
  EXPECT_FALSE(constant_time_equal(std::string_view("a\0b", 3), std::string_view("a\0c", 3)));
}

TEST(RandomToken, HasTheLengthAsked) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    const std::string token = random_token(32);
    EXPECT_EQ(token.size(), 43u);
    EXPECT_EQ(token.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
              std::string::npos);
    seen.insert(token);
  }
  EXPECT_EQ(seen.size(), 100u);
  const std::string secret = new_webhook_secret();
  EXPECT_EQ(secret.size(), 6u + 32u);
  EXPECT_EQ(base::base64_decoded(secret.substr(6))->size(), 24u);
}

}  // namespace
}  // namespace calotype::hub
